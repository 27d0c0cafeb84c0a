//! `ist generate`: continue a prompt, or several at once.

use std::io::IsTerminal;
use std::num::NonZeroUsize;

use clap::Args;
use ist_core::burn::tensor::DType;
use ist_models::generate::{BeamSettings, Generation, beam_search};
use ist_models::{Decoder, ModelFiles, registry};
use ist_peft::Adapter;
use serde_json::{Value, json};

use super::sampling::Sampling;
use super::{ModelArgs, print_json};
use crate::machine::device;
use crate::model_source::{self, Opening};
use crate::text::dialogue::Dialogue;
use crate::text::records::chat::{Message, Role};
use crate::text::stream::TextStream;
use crate::text::{NO_CHAT_TEMPLATE, TextModel};
use ist_records::terminal::screen;
use ist_records::{Failure, OrFail};

/// `ist generate`.
#[derive(Debug, Args)]
pub struct Generate {
    /// The model.
    #[command(flatten)]
    pub model: ModelArgs,
    /// Text to continue; several times for several texts at once
    #[arg(long, required_unless_present = "input_ids", conflicts_with = "input_ids")]
    pub prompt: Vec<String>,
    /// Token ids to continue: 1,2,3
    #[arg(long, value_delimiter = ',')]
    pub input_ids: Option<Vec<u32>>,
    /// Take the prompt for what a user says, laid out by the model's chat template
    #[arg(long, conflicts_with = "input_ids")]
    pub chat: bool,
    /// What the system says before
    #[arg(long, requires = "chat")]
    pub system: Option<String>,
    /// Tokens to generate at most
    #[arg(long, default_value_t = 64)]
    pub max_new_tokens: usize,
    /// How tokens are chosen.
    #[command(flatten)]
    pub sampling: Sampling,
    /// Search with that many beams instead, for the likeliest text per token
    #[arg(long, conflicts_with_all = ["temperature", "top_k", "top_p", "seed", "stop"])]
    pub beams: Option<NonZeroUsize>,
    /// End before this text; may be given several times
    #[arg(long, value_name = "TEXT")]
    pub stop: Vec<String>,
}

/// Generates.
pub fn run<A: Adapter>(arguments: &Generate) -> Result<(), Failure> {
    let device = device::open(&arguments.model.device)?;
    let files = model_source::find_named(&arguments.model.model)?;
    let needs_text = arguments.input_ids.is_none() || !arguments.stop.is_empty();
    let text = if needs_text {
        Some(model_source::text(&files)?)
    } else {
        model_source::text(&files).ok()
    };
    if arguments.stop.iter().any(String::is_empty) {
        return Err(Failure::input("--stop must not be empty"));
    }
    let (prompts, end_tokens) = prompts(arguments, &files, text.as_ref())?;
    let settings = arguments.sampling.settings(arguments.max_new_tokens, end_tokens)?;
    let stream = prompts.len() == 1
        && arguments.beams.is_none()
        && !arguments.model.json
        && std::io::stdout().is_terminal();
    let model = model_source::open::<A>(Opening {
        files: &files,
        storage: DType::F32,
        device: &device,
        adapter: arguments.model.adapter.as_deref(),
    })?;
    let outputs = if let Some(beams) = arguments.beams {
        let settings = BeamSettings {
            beams,
            max_new_tokens: settings.max_new_tokens,
            length_penalty: 1.0,
            end_tokens: settings.end_tokens,
        };
        searched(&model, &prompts, &settings, text.as_ref())?
    } else {
        let mut generation = Generation::new(&model, &prompts, &settings).or_input()?;
        if let Some(text) = &text {
            generated(generation, &Reading { text, stops: &arguments.stop, stream })?
        } else {
            while generation.step() {}
            let ids = generation.into_outputs().into_iter();
            ids.map(|ids| Output { ids, text: None }).collect()
        }
    };
    if arguments.model.json {
        return print_json(&document(&prompts, &outputs));
    }
    if stream && text.is_some() {
        return screen::result("\n");
    }
    let shown =
        |output: &Output| output.text.clone().unwrap_or_else(|| format!("{:?}", output.ids)) + "\n";
    screen::result(&outputs.iter().map(shown).collect::<Vec<_>>().join("---\n"))
}

/// The ids of every prompt, and the tokens that end its continuation.
fn prompts(
    arguments: &Generate,
    files: &ModelFiles,
    text: Option<&TextModel>,
) -> Result<(Vec<Vec<u32>>, Vec<u32>), Failure> {
    let end_tokens = files.end_tokens();
    let Some(text) = text.filter(|_| arguments.input_ids.is_none()) else {
        return Ok((vec![arguments.input_ids.clone().unwrap_or_default()], end_tokens));
    };
    if !arguments.chat {
        let prompts =
            arguments.prompt.iter().map(|prompt| text.encode(prompt)).collect::<Result<_, _>>()?;
        return Ok((prompts, end_tokens));
    }
    let vocab_size = registry::shape(files).or_input()?.vocab_size;
    let dialogue = Dialogue::of_model(text, vocab_size)?.ok_or_else(|| {
        Failure::input(format!(
            "--chat: {NO_CHAT_TEMPLATE}; without --chat the prompt is continued"
        ))
    })?;
    let system = arguments.system.iter().map(|text| (Role::System, text));
    let messages = |prompt| {
        let turns = system.clone().chain([(Role::User, prompt)]);
        turns.map(|(role, content)| Message::new(role, content.clone())).collect::<Vec<_>>()
    };
    let prompts = arguments
        .prompt
        .iter()
        .map(|prompt| dialogue.prompt(&messages(prompt)))
        .collect::<Result<_, _>>()?;
    Ok((prompts, dialogue.end_tokens))
}

/// One prompt's outcome at the top; of several all of them beside it, as `outputs`.
fn document(prompts: &[Vec<u32>], outputs: &[Output]) -> Value {
    let each: Vec<Value> = prompts
        .iter()
        .zip(outputs)
        .map(|(prompt, output)| json!({"prompt_ids": prompt, "output_ids": output.ids, "text": output.text}))
        .collect();
    let mut document = each[0].clone();
    if each.len() > 1 {
        document["outputs"] = each.into();
    }
    document
}

/// What came of one prompt.
struct Output {
    ids: Vec<u32>,
    text: Option<String>,
}

/// What is done with the tokens of a prompt as they come.
struct Reading<'a> {
    text: &'a TextModel,
    /// The texts before which an output ends.
    stops: &'a [String],
    /// Whether the text is printed as it comes.
    stream: bool,
}

/// Runs a generation to its end, token by token.
fn generated<A: Adapter>(
    mut generation: Generation<'_, A>,
    reading: &Reading<'_>,
) -> Result<Vec<Output>, Failure> {
    let each = 0..generation.rows();
    let mut streams: Vec<_> = each.map(|_| TextStream::new(reading.text, reading.stops)).collect();
    let looks = reading.stream || !reading.stops.is_empty();
    loop {
        let running: Vec<usize> =
            (0..generation.rows()).filter(|row| !generation.has_ended(*row)).collect();
        if !generation.step() {
            break;
        }
        // Text is decoded on the way only where somebody looks at it.
        for row in running.into_iter().filter(|_| looks) {
            let read = streams[row].read(generation.output(row))?;
            if read.stopped {
                generation.end(row);
            }
            if reading.stream {
                screen::result(&read.new)?;
            }
        }
    }
    let mut outputs = Vec::new();
    for (ids, stream) in generation.into_outputs().into_iter().zip(streams) {
        let (whole, rest) = stream.finish(&ids)?;
        if reading.stream {
            screen::result(&rest)?;
        }
        outputs.push(Output { ids, text: Some(whole) });
    }
    Ok(outputs)
}

/// The outputs of a beam search.
fn searched<A: Adapter>(
    model: &Decoder<A>,
    prompts: &[Vec<u32>],
    settings: &BeamSettings,
    text: Option<&TextModel>,
) -> Result<Vec<Output>, Failure> {
    let outputs = beam_search(model, prompts, settings).or_input()?;
    let decode = |ids: &[u32]| text.map(|text| text.decode(ids)).transpose();
    outputs.into_iter().map(|ids| Ok(Output { text: decode(&ids)?, ids })).collect()
}
