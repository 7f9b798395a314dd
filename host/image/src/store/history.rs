//! How an image came to be, as its config tells.

use super::{Image, LookupError, Store};
use crate::Digest;

/// One step of an image's making.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// When, RFC 3339.
    pub created: Option<String>,
    /// By which command.
    pub created_by: String,
    /// What its author says.
    pub comment: String,
    /// The layer that it made, if any, and the bytes that this takes in the store.
    pub layer: Option<(Digest, u64)>,
}

impl Store {
    /// The steps of an image, the last one first. A config without a history has one step for each layer.
    ///
    /// # Errors
    /// When the image's files cannot be read.
    pub fn history(&self, image: &Image) -> Result<Vec<Step>, LookupError> {
        let damaged = |cause| LookupError::Damaged { id: image.id, what: "its layers", cause };
        let mut layers = Vec::new();
        for diff_id in self.layers_of(image.id.0).map_err(damaged)? {
            layers.push((diff_id, self.layer_bytes(diff_id).map_err(damaged)?));
        }
        let mut layers = layers.into_iter();
        let mut steps = Vec::new();
        for step in image.config.history().iter().flatten() {
            let empty = step.empty_layer().unwrap_or(false);
            steps.push(Step {
                created: step.created().clone(),
                created_by: step.created_by().clone().unwrap_or_default(),
                comment: step.comment().clone().unwrap_or_default(),
                layer: if empty { None } else { layers.next() },
            });
        }
        let untold =
            |layer| Step { created: None, created_by: String::new(), comment: String::new(), layer: Some(layer) };
        steps.extend(layers.map(untold));
        steps.reverse();
        Ok(steps)
    }
}
