//! How tokens are chosen, for every command that generates.

use clap::Args;
use ist_models::generate::Settings;

use ist_records::Failure;

/// How tokens are chosen.
#[derive(Debug, Args)]
pub struct Sampling {
    /// 0 is greedy
    #[arg(long, default_value_t = 0.0, allow_negative_numbers = true)]
    pub temperature: f64,
    /// Draw from that many likeliest tokens only
    #[arg(long)]
    pub top_k: Option<usize>,
    /// Draw from the likeliest tokens that hold this share of the probability
    #[arg(long)]
    pub top_p: Option<f64>,
    /// Fixes the draws
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
}

impl Sampling {
    /// The settings of a generation.
    pub fn settings(
        &self,
        max_new_tokens: usize,
        end_tokens: Vec<u32>,
    ) -> Result<Settings, Failure> {
        let Self { temperature, top_k, top_p, seed } = *self;
        if !(temperature >= 0.0 && temperature.is_finite()) {
            return Err(Failure::input(format!(
                "--temperature must be at least 0, found {temperature}"
            )));
        }
        if top_k == Some(0) {
            return Err(Failure::input("--top-k must be at least 1, found 0"));
        }
        if top_p.is_some_and(|p| !(p > 0.0 && p <= 1.0)) {
            return Err(Failure::input(format!(
                "--top-p must be in (0, 1], found {}",
                top_p.unwrap_or_default()
            )));
        }
        Ok(Settings { max_new_tokens, temperature, top_k, top_p, seed, end_tokens })
    }
}
