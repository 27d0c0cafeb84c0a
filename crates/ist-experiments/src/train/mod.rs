//! `ist train`: one training run, from a configuration to an adapter.
//!
//! The loop is here, readable from top to bottom. What it needs first is in [`start`] and
//! [`prepare`], what it checks in [`selfcheck`], what it measures in [`evaluate`]. What happens is
//! told to an [`observer`].

mod adapters;
pub mod checkpoint;
pub mod costs;
pub mod evaluate;
pub mod observer;
pub mod prepare;
pub mod selfcheck;
pub mod start;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use anyhow::Context;
use ist_core::burn::tensor::Tensor;
use ist_core::tuner::{ImportanceUpdate, StepReport, TunerError};
use ist_core::{Footprint, Gradients, LayeredModel, Responses, Tuner, gradients, step};
use ist_files::{FileName, durable};
use ist_models::{Decoder, TokenBatch};
use ist_peft::{Adapter, Adapters};
use serde_json::{Value, json};

use crate::config::RunConfig;
use crate::machine::{live_bytes, threads};
use crate::memory_plan::{halve_until, least_step};
use crate::text::records::{EpochOrder, Order};
use checkpoint::{Loaded, Progress};
use costs::Plan;
use ist_records::record::costs::{self as cost_log, Costs, Scoring, StepCost};
use ist_records::record::digests::LogMarks;
use ist_records::record::folder::RunFolder;
use ist_records::record::importance::{self, ImportanceLine};
use ist_records::record::lines::LineLog;
use ist_records::record::result::{Curve, selection_counts};
use ist_records::record::tensorboard::EventLog;
use ist_records::record::{checkpoints, lines};
use ist_records::{Failure, OrFail};
use observer::{RunBegin, RunObserver};
use prepare::Prepared;

/// The logs of a run, in the order in which [`Run`] has them.
const LOGS: [&str; 4] = ["metrics.jsonl", "selections.jsonl", importance::LOG, cost_log::LOG];

/// A run that is going on: everything that changes from step to step.
pub struct Run<'a, A: Adapter> {
    config: &'a RunConfig,
    folder: &'a RunFolder,
    data: &'a Prepared,
    model: Decoder<A>,
    adapters: Adapters<A>,
    tuner: Tuner,
    training: EpochOrder,
    scoring: EpochOrder,
    /// Whether a step was watched that changed parameters.
    watched: bool,
    progress: Progress,
    observer: &'a mut dyn RunObserver,
    total_steps: usize,
    metrics: LineLog,
    selections: LineLog,
    importance: LineLog,
    costs: LineLog,
    events: Option<EventLog>,
    plan: &'a Plan,
}

/// What a run starts from.
pub struct Start<'a, A: Adapter> {
    /// The configuration.
    pub config: &'a RunConfig,
    /// The run's folder.
    pub folder: &'a RunFolder,
    /// The data.
    pub data: &'a Prepared,
    /// The model with its adapters on.
    pub model: Decoder<A>,
    /// The adapters' configurations.
    pub adapters: Adapters<A>,
    /// The tuner before its first step.
    pub tuner: Tuner,
    /// What the run is planned to take.
    pub plan: &'a Plan,
    /// Steps of the whole run.
    pub total_steps: usize,
    /// Go on from the newest checkpoint.
    pub resume: bool,
    /// Who hears of it.
    pub observer: &'a mut dyn RunObserver,
}

impl<'a, A: Adapter> Run<'a, A> {
    /// The run at its beginning, or at its newest checkpoint with later lines cut off.
    pub fn new(start: Start<'a, A>) -> Result<Self, Failure> {
        let Start {
            config,
            folder,
            data,
            mut model,
            mut adapters,
            mut tuner,
            plan,
            total_steps,
            resume,
            observer,
        } = start;
        let order = |order, purpose| data.train.epoch_order(order, config.seed, purpose);
        let (mut training, mut scoring) =
            (order(config.data.order, "training"), order(Order::Shuffled, "scoring"));
        let mut progress = Progress {
            steps: 0,
            training: training.position(),
            scoring: scoring.position(),
            best: None,
            evaluations_without_improvement: 0,
            score_before: None,
        };
        let device = model.device().clone();
        let newest = if resume {
            let place = checkpoint::Place { run: folder.path(), logs: &LOGS };
            checkpoint::load_newest(place, &mut model, &mut adapters, &device)?
        } else {
            None
        };
        let mut warnings = Vec::new();
        let mut ends = BTreeMap::new();
        if let Some(Loaded { state, progress: saved, inputs, budget, logs, notes }) = newest {
            reads_the_same(&inputs, &data.inputs())?;
            if let Some(before) = budget {
                let key = "memory budget in bytes (plan.json)";
                reads_the_same(&json!({key: before}), &json!({key: plan.budget}))?;
            }
            let from = folder.join(checkpoints::FOLDER).join(saved.steps.to_string());
            let named = || from.display().to_string();
            tuner.restore(state, &device).with_context(named).or_input()?;
            ends = logs;
            training.seek(saved.training).with_context(named).or_input()?;
            scoring.seek(saved.scoring).with_context(named).or_input()?;
            progress = saved;
            warnings = notes;
            let checkpoints = folder.join(checkpoints::FOLDER);
            checkpoints::remove_oldest(&checkpoints, config.train.keep_last).or_run()?;
        }
        // Without a checkpoint nothing of the logs counts.
        let log = |name: &str| {
            let mut log = LineLog::open(&folder.join(name)).or_run()?;
            log.cut(ends.get(name).copied().unwrap_or(0)).or_run()?;
            Ok::<_, Failure>(log)
        };
        let [metrics, selections, importance, costs] = LOGS;
        let metrics = log(metrics)?;
        let selections = log(selections)?;
        let importance = log(importance)?;
        let costs = log(costs)?;
        let events =
            config.logging.tensorboard.then(|| EventLog::open(folder.path(), progress.steps));
        let events = events.transpose().or_run()?;
        warnings.extend(events.as_ref().and_then(EventLog::note).map(str::to_owned));
        let folder_path = folder.path();
        observer.begin(RunBegin { folder: folder_path, total_steps, done: progress.steps })?;
        for warning in &warnings {
            observer.say(&format!("warning: {warning}"));
        }
        Ok(Self {
            config,
            folder,
            data,
            model,
            adapters,
            tuner,
            training,
            scoring,
            watched: progress.steps > 0,
            progress,
            observer,
            total_steps,
            metrics,
            selections,
            importance,
            costs,
            events,
            plan,
        })
    }

    /// Runs to the end; returns `result.json`.
    pub fn finish(mut self) -> Result<Value, Failure> {
        if self.progress.score_before.is_none() {
            self.progress.score_before = self.score()?;
        }
        if self.progress.steps == 0 {
            self.check_fresh_adapters()?;
            self.save_checkpoint().or_run()?;
        }
        let mut status = "finished";
        while self.progress.steps < self.total_steps {
            // Asked before the step, so that a run resumed behind its last evaluation stops where
            // it stopped before.
            if self.stops_early() {
                status = "stopped early";
                break;
            }
            self.step()?;
            if self.observer.asks_to_stop() {
                self.save_checkpoint().or_run()?;
                status = "interrupted";
                break;
            }
        }
        self.observer.finish();
        let result = self.close(status)?;
        if status == "interrupted" {
            let (done, folder) = (self.progress.steps, self.folder.path().display());
            let how = format!("go on with the same command and --resume --output {folder}");
            return Err(Failure::Interrupted(format!(
                "stopped after step {done} of {}; {how}",
                self.total_steps
            )));
        }
        Ok(result)
    }

    /// One optimizer step and what belongs to it: scoring before it, evaluation and checkpoint
    /// after it.
    fn step(&mut self) -> Result<(), Failure> {
        let started = Instant::now();
        let step = self.tuner.next_step();
        let records = self.training.next_batch(self.config.train.batch);
        let batches = self.batches(&records);
        let scoring = self
            .update_importance(&batches)
            .map_err(|failure| self.name_last_checkpoint(&failure))?;
        live_bytes::reset_peak();
        let report =
            self.advance(&batches).map_err(|failure| self.name_last_checkpoint(&failure))?;
        let (seconds, peak) =
            (started.elapsed().as_secs_f64(), live_bytes::peak_on(self.model.device()));
        let peak = scoring.map_or(peak, |scoring| peak.max(scoring.peak_bytes as usize));
        self.write_step(&report, seconds, peak).or_run()?;
        let predicted_peak_bytes = report.predicted_bytes.map(|bytes| self.plan.resident() + bytes);
        let times = Some(costs::step_times(self.tuner.times()));
        self.costs.write(&StepCost { step, predicted_peak_bytes, scoring, times }).or_run()?;
        self.observer.step(&report, seconds);
        self.progress.steps = step + 1;
        self.progress.training = self.training.position();
        self.progress.scoring = self.scoring.position();
        let last = self.progress.steps == self.total_steps;
        let due = |every: Option<usize>| {
            every.is_some_and(|every| self.progress.steps.is_multiple_of(every))
        };
        let (evaluation, saving) =
            (due(self.config.train.eval_every) || last, due(self.config.train.save_every) || last);
        if evaluation || saving {
            self.check_parameters()?;
        }
        if evaluation {
            self.evaluate(step)?;
        }
        if saving {
            self.save_checkpoint().or_run()?;
        }
        Ok(())
    }

    /// Draws, walks and updates. The first step that is not skipped is watched.
    fn advance(&mut self, batches: &[TokenBatch]) -> Result<StepReport, Failure> {
        let stop = |error: TunerError| Failure::run(error);
        if self.watched {
            return self.tuner.step(&mut self.model, batches).map_err(stop);
        }
        let (before, mut sizes) =
            (selfcheck::Fingerprint::of(&self.model), selfcheck::GradientSizes::default());
        let mut watch = |found: &Gradients| sizes.note(found);
        let report = self.tuner.watched_step(&mut self.model, batches, &mut watch).map_err(stop)?;
        if report.skipped {
            // Its gradients overflowed under the loss scale: they say nothing of the adapters.
            return Ok(report);
        }
        self.watched = true;
        if self.adapters_are_fresh() {
            sizes.reach(&self.model, &report.layers).or_run()?;
        }
        before.only_moved(&self.model, &report.layers).or_run()?;
        Ok(report)
    }

    fn adapters_are_fresh(&self) -> bool {
        self.config.adapter.tables().iter().all(|table| table.init_from.is_none())
    }

    fn check_fresh_adapters(&mut self) -> Result<(), Failure> {
        if self.adapters_are_fresh()
            && self.adapters.configs().all(|config| config.settings.starts_at_base())
        {
            let batch = self.data.batch(&self.data.train, &[0], self.model.device());
            selfcheck::fresh_adapters_change_nothing(&self.model, &batch).or_run()?;
        }
        Ok(())
    }

    /// Scores the policy's candidates when that is due, before a step on `training`.
    fn update_importance(&mut self, training: &[TokenBatch]) -> Result<Option<Scoring>, Failure> {
        let candidates = self.tuner.candidates();
        if candidates.is_empty() {
            return Ok(None);
        }
        let started = Instant::now();
        live_bytes::reset_peak();
        let kind = self.config.policy.kind();
        let size = self.config.policy.scoring().map(|scoring| scoring.records);
        let size = size.ok_or_else(|| {
            Failure::run(format!("policy {kind} has candidates but no `score_batch`"))
        })?;
        let records = self.scoring.next_full_batch(size);
        let micro_batch = self.scoring_micro_batch(&records, candidates.len(), training);
        let batches: Vec<_> =
            records.chunks(micro_batch).map(|records| self.batch(records)).collect();
        let update = self.tuner.score(&self.model, &batches, candidates).or_run()?;
        let (seconds, peak_bytes) =
            (started.elapsed().as_secs_f64(), live_bytes::peak_on(self.model.device()) as u64);
        self.write_importance(&records, &update).or_run()?;
        Ok(Some(Scoring { seconds, peak_bytes, micro_batch }))
    }

    /// How many of the scoring records are run at once: `train.micro_batch`, or fewer where scoring
    /// would otherwise take more than the leanest step on `training` does, so that no scoring pass
    /// sets the run's peak.
    fn scoring_micro_batch(
        &self,
        records: &[usize],
        candidates: usize,
        training: &[TokenBatch],
    ) -> usize {
        let layers = self.model.layers().len();
        let of = |footprint: Footprint| least_step(&footprint, layers, self.plan.memory);
        let least = training.iter().filter_map(|batch| self.model.footprint(batch)).map(of).max();
        let fits = |size: usize| {
            let mut batches = records.chunks(size).map(|records| self.batch(records));
            batches.all(|batch| {
                self.model.footprint(&batch).map(|found| found.scoring(candidates)) <= least
            })
        };
        halve_until(self.config.train.micro_batch.min(records.len()), fits)
    }

    fn batch(&self, records: &[usize]) -> TokenBatch {
        self.data.batch(&self.data.train, records, self.model.device())
    }

    fn batches(&self, records: &[usize]) -> Vec<TokenBatch> {
        records.chunks(self.config.train.micro_batch).map(|records| self.batch(records)).collect()
    }

    /// The validation loss, the best adapter, the sample texts.
    fn evaluate(&mut self, step: usize) -> Result<(), Failure> {
        if let Some(validation) = &self.data.validation {
            let records: Vec<usize> = (0..validation.examples.len()).collect();
            let device = self.model.device().clone();
            let batches = records
                .chunks(self.config.train.micro_batch)
                .map(|r| self.data.batch(validation, r, &device));
            let responses = Responses::full(self.model.layers().len());
            let (loss, tokens) = step::mean_loss(&self.model, batches, &responses);
            if !loss.is_finite() {
                let failure =
                    Failure::run(format!("the validation loss after step {step} is {loss}"));
                return Err(self.name_last_checkpoint(&failure));
            }
            self.write_metrics(&json!({"step": step, "eval_loss": loss, "eval_tokens": tokens}))
                .or_run()?;
            self.observer.say(&format!("step {}: validation loss {loss:.4}", step + 1));
            self.note_evaluation(step, loss)?;
        }
        for (prompt, text) in evaluate::samples(&self.model, self.config, self.data)? {
            self.observer.say(&format!("step {}: {prompt} | {text}", step + 1));
            self.write_metrics(&json!({"step": step, "sample_prompt": prompt, "sample": text}))
                .or_run()?;
        }
        Ok(())
    }

    fn note_evaluation(&mut self, step: usize, loss: f64) -> Result<(), Failure> {
        if self.progress.best.is_none_or(|(best, _)| loss < best) {
            self.progress.best = Some((loss, step));
            self.progress.evaluations_without_improvement = 0;
            return self.save_adapter("adapter-best");
        }
        self.progress.evaluations_without_improvement += 1;
        Ok(())
    }

    fn stops_early(&self) -> bool {
        let patience = self.config.train.early_stopping;
        patience.is_some_and(|patience| self.progress.evaluations_without_improvement >= patience)
    }

    fn save_adapter(&mut self, name: &str) -> Result<(), Failure> {
        let base = self.config.model.path.to_string();
        ist_peft::save(&mut self.model, &self.adapters, &self.folder.join(name), &base).or_run()
    }

    fn save_checkpoint(&mut self) -> anyhow::Result<()> {
        let folder = self.folder.join(checkpoints::FOLDER);
        let inputs = self.data.inputs();
        let saved = self.sync_logs().and_then(|logs| {
            let content = checkpoint::Content {
                adapters: &self.adapters,
                tuner: self.tuner.state()?,
                progress: &self.progress,
                inputs: &inputs,
                logs,
                budget: self.plan.budget,
            };
            checkpoint::save::<A>(&folder, self.config.train.keep_last, &mut self.model, content)
        });
        saved.context(
            "cannot save a checkpoint; what was saved before is whole: continue with --resume when \
             the cause is gone",
        )
    }

    /// Makes sure that no power cut takes a line that was written, and says how far each log is.
    fn sync_logs(&self) -> anyhow::Result<LogMarks> {
        let logs = [&self.metrics, &self.selections, &self.importance, &self.costs];
        let mut marks = LogMarks::new();
        for (name, log) in LOGS.into_iter().zip(logs) {
            marks.insert(FileName::try_from(name.to_owned())?, log.mark()?);
        }
        self.events.as_ref().map_or(Ok(()), EventLog::sync)?;
        durable::sync_folder(self.folder.path())?;
        Ok(marks)
    }

    /// Fails when an update left a parameter that is no finite number, before anything of it is
    /// saved.
    fn check_parameters(&self) -> Result<(), Failure> {
        let mut wrong = None;
        let mut look = |name: &str, value: Tensor<1>| {
            if wrong.is_none() && !gradients::scalar(value.abs().sum()).is_finite() {
                wrong = Some(name.to_owned());
            }
        };
        gradients::for_each_parameter(gradients::OUTER, self.model.outer(), &mut look);
        for (index, layer) in self.model.layers().iter().enumerate() {
            gradients::for_each_parameter(&gradients::layer_prefix(index), layer, &mut look);
        }
        let step = self.progress.steps.saturating_sub(1);
        wrong.map_or(Ok(()), |name| {
            let what = format!(
                "parameter {name} is not finite after step {step}; try a lower learning rate"
            );
            Err(self.name_last_checkpoint(&Failure::run(what)))
        })
    }

    /// Says where the last good checkpoint is, for a run whose numbers went wrong. One of the
    /// parameters as they are now is not good: what failed was computed with them.
    fn name_last_checkpoint(&self, failure: &Failure) -> Failure {
        let newest =
            checkpoints::newest_before(&self.folder.join("checkpoints"), self.progress.steps)
                .ok()
                .flatten();
        let place = newest.map_or_else(|| "none".to_owned(), |path| path.display().to_string());
        Failure::run(format!("{failure}\nlast good checkpoint: {place}"))
    }

    fn write_step(&mut self, report: &StepReport, seconds: f64, peak: usize) -> anyhow::Result<()> {
        self.selections.write(&json!({"step": report.step, "layers": report.layers.as_slice()}))?;
        let mut line = json!({
            "step": report.step,
            "epoch": self.training.epochs(),
            "loss": report.loss,
            "lr": report.learning_rate,
            "grad_norm": report.grad_norm,
            "tokens": report.tokens,
            "seconds": seconds,
            "peak_bytes": peak,
        });
        if let Some(scale) = report.loss_scale {
            line["loss_scale"] = scale.into();
            line["skipped"] = report.skipped.into();
        }
        self.write_metrics(&line)
    }

    fn write_importance(
        &mut self,
        records: &[usize],
        update: &ImportanceUpdate,
    ) -> anyhow::Result<()> {
        let records: Vec<usize> =
            records.iter().map(|&record| self.data.train.source[record]).collect();
        let suppressed = update.suppressed.iter().map(|layers| layers.as_slice().to_vec());
        let line = ImportanceLine {
            step: update.step,
            records,
            suppressed: suppressed.collect(),
            losses: update.losses.clone(),
            rewards: update.rewards.clone(),
            scores: update.scores.clone(),
        };
        self.events.as_mut().map_or(Ok(()), |events| events.importance(&line))?;
        self.importance.write(&line)
    }

    /// A line of `metrics.jsonl`, and its figures among the events.
    fn write_metrics(&mut self, line: &Value) -> anyhow::Result<()> {
        self.events.as_mut().map_or(Ok(()), |events| events.metrics(line))?;
        self.metrics.write(line)
    }

    /// The task's score with the adapter as it is now, where a task is configured.
    fn score(&self) -> Result<Option<Value>, Failure> {
        let Some(eval) = &self.config.eval else { return Ok(None) };
        evaluate::score(&self.model, eval, self.config, self.data)
            .map(|score| Some(score.to_json()))
    }

    /// Saves the final adapter and writes the result.
    fn close(&mut self, status: &str) -> Result<Value, Failure> {
        if status != "interrupted" {
            self.save_adapter("adapter")?;
        }
        let after = if status == "interrupted" { None } else { self.score()? };
        self.sync_logs().context("cannot sync the logs").or_run()?;
        let curve = Curve::read(&self.folder.join("metrics.jsonl")).or_run()?;
        let costs = Costs::read(&self.folder.join(cost_log::LOG)).or_run()?;
        let layers = self.model.layers().len();
        let selected = selection_counts(&self.folder.join("selections.jsonl"), layers).or_run()?;
        let best = self.progress.best.map(|(loss, step)| json!({"step": step, "eval_loss": loss}));
        let result = json!({
            "status": status,
            "run": run_part(self.config, self.folder.path()),
            "train": curve.to_json(self.trainable(), self.total()),
            "scoring": costs.scoring(curve.seconds),
            "time": costs.time(curve.seconds),
            "memory": costs.memory(&self.plan.budget_used(self.config), curve.peak_bytes),
            "best": best,
            "eval": {"before": self.progress.score_before, "after": after},
            "layers": {"selected": selected, "scores": self.tuner.policy().scores()},
            "data": self.data.to_json(),
            "model": self.data.model_json(),
        });
        let text = serde_json::to_vec_pretty(&result).context("result.json").or_run()?;
        lines::replace(&self.folder.join("result.json"), &text).or_run()?;
        Ok(result)
    }

    /// Scalars of all adapters.
    fn trainable(&self) -> usize {
        let layers = self.model.layers().iter().map(gradients::count_parameters);
        gradients::count_parameters(self.model.outer()) + layers.sum::<usize>()
    }

    /// Scalars of the frozen model and its adapters.
    fn total(&self) -> usize {
        self.trainable() + self.data.frozen_parameters()
    }
}

/// Fails when data or model are not those that the checkpoint's run read.
fn reads_the_same(before: &Value, now: &Value) -> Result<(), Failure> {
    let parts = before.as_object().into_iter().flatten();
    match parts.map(|(part, _)| part).find(|part| before[part.as_str()] != now[part.as_str()]) {
        Some(part) => {
            let (found, expected) = (&now[part.as_str()], &before[part.as_str()]);
            let advice = "restore what the run began with, or start a new run";
            Err(Failure::input(format!(
                "{part} changed since the run began: {found}, expected {expected}; {advice}"
            )))
        }
        None => Ok(()),
    }
}

/// The `run` part of a result: what it was and what ran it.
fn run_part(config: &RunConfig, folder: &Path) -> Value {
    json!({
        "folder": folder.display().to_string(),
        "configuration": config,
        "commit": option_env!("IST_COMMIT"),
        "versions": {"ist": env!("CARGO_PKG_VERSION"), "burn": option_env!("IST_BURN_VERSION")},
        "threads": threads::count(),
        "os": std::env::consts::OS,
        "arch": std::env::consts::ARCH,
    })
}
