//! `ist generate`: continue a prompt.

use clap::Args;
use ist_core::burn::tensor::DType;
use ist_models::CausalLm;
use ist_models::generate::{Settings, generate};
use ist_peft::Adapter;
use serde_json::json;

use super::{ModelArgs, print_json, print_text};
use crate::device;
use crate::failure::{Failure, OrFail};
use crate::model_source::{self, WithAdapted};
use crate::text::TextModel;

/// `ist generate`.
#[derive(Debug, Args)]
pub struct Generate {
    /// The model.
    #[command(flatten)]
    pub model: ModelArgs,
    /// Text to continue
    #[arg(long, required_unless_present = "input_ids", conflicts_with = "input_ids")]
    pub prompt: Option<String>,
    /// Token ids to continue: 1,2,3
    #[arg(long, value_delimiter = ',')]
    pub input_ids: Option<Vec<u32>>,
    /// Tokens to generate at most
    #[arg(long, default_value_t = 64)]
    pub max_new_tokens: usize,
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

/// Generates.
pub fn run<A: Adapter>(arguments: &Generate) -> Result<(), Failure> {
    let device = device::open(&arguments.model.device)?;
    let files = model_source::find_named(&arguments.model.model)?;
    let settings = settings(arguments, files.end_tokens())?;
    let text = match &arguments.prompt {
        Some(_) => Some(model_source::text(&files)?),
        None => model_source::text(&files).ok(),
    };
    let prompt = match (&arguments.prompt, &text, &arguments.input_ids) {
        (Some(prompt), Some(text), _) => text.encode(prompt)?,
        (_, _, ids) => ids.clone().unwrap_or_default(),
    };
    let job = Job { prompt: &prompt, settings };
    let output = model_source::open::<A, _>(&files, DType::F32, &device, arguments.model.adapter.as_deref(), job)?;
    let written = text.as_ref().map(|text: &TextModel| text.decode(&output)).transpose()?;
    if arguments.model.json {
        return print_json(&json!({"prompt_ids": prompt, "output_ids": output, "text": written}));
    }
    print_text(&(written.unwrap_or_else(|| format!("{output:?}")) + "\n"))
}

fn settings(arguments: &Generate, end_tokens: Vec<u32>) -> Result<Settings, Failure> {
    let Generate { max_new_tokens, temperature, top_k, top_p, seed, .. } = *arguments;
    if !(temperature >= 0.0 && temperature.is_finite()) {
        return Err(Failure::input(format!("--temperature must be at least 0, found {temperature}")));
    }
    if top_k == Some(0) {
        return Err(Failure::input("--top-k must be at least 1, found 0"));
    }
    if top_p.is_some_and(|p| !(p > 0.0 && p <= 1.0)) {
        return Err(Failure::input(format!("--top-p must be in (0, 1], found {}", top_p.unwrap_or_default())));
    }
    Ok(Settings { max_new_tokens, temperature, top_k, top_p, seed, end_tokens })
}

struct Job<'a> {
    prompt: &'a [u32],
    settings: Settings,
}

impl<A: Adapter> WithAdapted<A> for Job<'_> {
    type Output = Vec<u32>;

    fn call<M: CausalLm<A>>(self, model: M) -> Result<Vec<u32>, Failure> {
        let mut outputs = generate(&model, &[self.prompt.to_vec()], &self.settings).or_input()?;
        Ok(outputs.remove(0))
    }
}
