//! The module around a model's layers, which versions of one model call differently.
//!
//! A model of text and pictures keeps its text model under `model.language_model`, in older files
//! under `language_model.model`. The text model alone has it under `model`.

use crate::files::PREFIX;
use crate::site::{Site, SiteKind};

/// The names of the module, the longer ones first.
pub const BODIES: [&str; 3] = ["model.language_model", "language_model.model", "model"];
/// What stands in it.
const INNER: [&str; 3] = ["layers", "embed_tokens", "norm"];
/// The head in older files.
const OLD_HEAD: &str = "language_model.lm_head";
/// Parts of paths of modules that see or hear.
const SENSES: [&str; 10] = [
    "vision_tower",
    "vision_model",
    "vision_encoder",
    "visual",
    "multi_modal_projector",
    "mm_projector",
    "patch_merger",
    "image_newline",
    "embed_vision",
    "audio_tower",
];

/// The path of a tensor of a text model under the name `body` of its body, where it stands under
/// another one's.
pub fn renamed(path: &str, body: &str) -> Option<String> {
    if !BODIES.contains(&body) {
        return None;
    }
    if let Some(rest) = path.strip_prefix(OLD_HEAD) {
        return Some(format!("lm_head{rest}"));
    }
    let inner = |other: &str| {
        let rest = path.strip_prefix(other)?.strip_prefix('.')?;
        let first = rest.split('.').next()?;
        INNER.contains(&first).then_some(rest)
    };
    let (found, rest) = BODIES.iter().find_map(|other| Some((*other, inner(other)?)))?;
    (found != body).then(|| format!("{body}.{rest}"))
}

/// Whether the path is of a module beside the text model, which sees or hears.
pub fn is_beside_text(path: &str) -> bool {
    path.split('.').any(|part| SENSES.contains(&part))
}

/// Whether the model of these modules is the text model of a larger one.
pub(crate) fn has_more_than_text(every: &[Site]) -> bool {
    body_of(every).is_some_and(|body| body == BODIES[0])
}

/// A key of an adapter's file under the body's name of the model with these modules.
pub(crate) fn renamed_key(key: &str, every: &[Site]) -> Option<String> {
    let path = key.strip_prefix(PREFIX)?;
    renamed(path, body_of(every)?).map(|path| format!("{PREFIX}{path}"))
}

fn body_of(every: &[Site]) -> Option<&str> {
    let embedding = every.iter().find(|site| site.kind == SiteKind::Embedding)?;
    embedding.path.rsplit_once('.').map(|(body, _)| body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_of_a_text_model_has_one_name() {
        let inner = "layers.0.self_attn.q_proj.weight";
        for body in BODIES {
            for other in BODIES {
                let found = renamed(&format!("{other}.{inner}"), body);
                let expected = (body != other).then(|| format!("{body}.{inner}"));
                assert_eq!(found, expected, "{other} under {body}");
            }
        }
        let head = renamed("language_model.lm_head.weight", "model.language_model");
        assert_eq!(head.as_deref(), Some("lm_head.weight"));
        assert_eq!(renamed("transformer.h.0.attn.c_attn.weight", "transformer"), None);
        assert_eq!(renamed("model.visual.blocks.0.attn.qkv.weight", "model.language_model"), None);
    }
}
