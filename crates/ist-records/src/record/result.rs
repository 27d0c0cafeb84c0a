//! `result.json`: what a run was and what came of it.

use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

use super::lines;

/// The training curve and the sums that the closing summary and the result share, read back from
/// the run's own log.
#[derive(Clone, Debug, Default)]
pub struct Curve {
    /// (step, loss) of every step.
    pub losses: Vec<(usize, f64)>,
    /// (step, validation loss) of every evaluation.
    pub evaluations: Vec<(usize, f64)>,
    /// Predicted tokens of all steps.
    pub tokens: u64,
    /// Seconds of all steps, also those before a resume.
    pub seconds: f64,
    /// The most live bytes of any step.
    pub peak_bytes: u64,
    /// Steps that changed nothing because scaled gradients overflowed.
    pub skipped: usize,
}

impl Curve {
    /// Reads `metrics.jsonl`.
    pub fn read(path: &Path) -> Result<Self> {
        let mut curve = Self::default();
        for line in lines::read(path)? {
            let step = line["step"].as_u64().unwrap_or_default() as usize;
            if let Some(loss) = line["eval_loss"].as_f64() {
                curve.evaluations.push((step, loss));
            }
            if let Some(loss) = line["loss"].as_f64() {
                curve.losses.push((step, loss));
                curve.tokens += line["tokens"].as_u64().unwrap_or_default();
                curve.seconds += line["seconds"].as_f64().unwrap_or_default();
                curve.skipped += usize::from(line["skipped"] == true);
                curve.peak_bytes =
                    curve.peak_bytes.max(line["peak_bytes"].as_u64().unwrap_or_default());
            }
        }
        Ok(curve)
    }

    /// The mean losses of the first and of the last tenth of the steps, at least one step each.
    pub fn first_and_last_tenth(&self) -> Option<(f64, f64)> {
        let tenth = (self.losses.len() / 10).max(1);
        let mean = |part: &[(usize, f64)]| {
            part.iter().map(|(_, loss)| loss).sum::<f64>() / part.len() as f64
        };
        let last = self.losses.len().checked_sub(tenth)?;
        Some((mean(&self.losses[..tenth]), mean(&self.losses[last..])))
    }

    /// The `train` part of the result.
    pub fn to_json(&self, trainable: usize, total: usize) -> Value {
        let (first, last) = self.first_and_last_tenth().unzip();
        json!({
            "steps": self.losses.len(),
            "curve": self.losses,
            "evaluations": self.evaluations,
            "loss_first_tenth": first,
            "loss_last_tenth": last,
            "tokens": self.tokens,
            "seconds": self.seconds,
            "peak_bytes": self.peak_bytes,
            "skipped_steps": self.skipped,
            "parameters": {"trainable": trainable, "total": total},
        })
    }
}

/// How often each layer was chosen, from `selections.jsonl`.
pub fn selection_counts(path: &Path, num_layers: usize) -> Result<Vec<usize>> {
    let mut counts = vec![0; num_layers];
    for line in lines::read(path)? {
        for layer in line["layers"].as_array().into_iter().flatten().filter_map(Value::as_u64) {
            if let Some(count) = counts.get_mut(layer as usize) {
                *count += 1;
            }
        }
    }
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tenths_are_means_over_steps() {
        let curve = Curve {
            losses: (0..20).map(|step| (step, 20.0 - step as f64)).collect(),
            ..Curve::default()
        };
        assert_eq!(curve.first_and_last_tenth(), Some((19.5, 1.5)));
        assert_eq!(Curve::default().first_and_last_tenth(), None);
    }
}
