//! What telemetry is about: one process, its service, its host.

use std::hash::BuildHasher as _;

use opentelemetry_semantic_conventions::resource::PROCESS_EXECUTABLE_PATH;
use rustc_hash::FxBuildHasher;

use super::attribute::AttributeSink;

/// The resource of one process, shared by all its spans (`Arc<Resource>`); two spans belong to the same
/// `ResourceSpans` exactly when their `id` is the same.
#[derive(Clone, Debug, Default)]
pub struct Resource {
    /// Unique per resource while the agent runs.
    pub id: u64,
    /// `service.name`, also the label of metrics.
    pub service_name: Box<str>,
    /// All attributes, `service.name` included.
    pub attributes: Vec<(Box<str>, Value)>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Str(Box<str>),
    Int(i64),
    Strs(Vec<Box<str>>),
}

impl Resource {
    /// The same number for processes of the same service that run the same executable; `None` when that is not known.
    #[must_use]
    pub fn program(&self) -> Option<u64> {
        let (_, executable) = self.attributes.iter().find(|(key, _)| &**key == PROCESS_EXECUTABLE_PATH)?;
        let Value::Str(executable) = executable else { return None };
        Some(FxBuildHasher.hash_one((&self.service_name, executable)))
    }

    /// Hands every attribute to `sink`.
    pub fn attributes(&self, sink: &mut impl AttributeSink) {
        for (key, value) in &self.attributes {
            match value {
                Value::Str(value) => sink.str(key, value),
                Value::Int(value) => sink.int(key, *value),
                Value::Strs(values) => {
                    let values: Vec<&str> = values.iter().map(AsRef::as_ref).collect();
                    sink.strs(key, &values);
                }
            }
        }
    }
}
