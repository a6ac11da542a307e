//! The configuration file: a YAML mapping from names to values, lists and mappings, with the lines where they stand.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{DuplicateKeyPolicy, Error, MergeKeyPolicy, Spanned};

use super::error::UsageError;

/// The largest file that is read, in octets.
const MAX: u64 = 1 << 20;

/// One key of the file, or of a mapping in it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) line: u64,
    pub(super) value: Value,
}

/// What a key has; numbers and truth values as text, for the flags' value parsers.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Value {
    One(String),
    List(Vec<Value>),
    Mapping(Vec<Entry>),
    Nothing,
}

impl Value {
    /// The value, where it is one.
    pub(super) fn one(self) -> Option<String> {
        match self {
            Self::One(value) => Some(value),
            _ => None,
        }
    }
}

/// The keys of the file at `path`, in order, each once.
pub(super) fn read(path: &Path) -> Result<Vec<Entry>, UsageError> {
    let refused = |problem: &dyn fmt::Display| UsageError::new(format!("{}: {problem}", path.display()));
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(MAX + 1).read_to_string(&mut text))
        .map_err(|error| refused(&format_args!("cannot be read: {error}")))?;
    if text.len() as u64 > MAX {
        return Err(refused(&"larger than 1 MiB"));
    }
    let options = serde_saphyr::options! {
        with_snippet: false,
        // `propagate: off` is a word here, as YAML 1.2 has it.
        strict_booleans: true,
        duplicate_keys: DuplicateKeyPolicy::Error,
        merge_keys: MergeKeyPolicy::Error,
    };
    // A file with nothing but comments sets nothing.
    match serde_saphyr::from_str_with_options::<Option<Entries>>(&text, options) {
        Ok(entries) => Ok(entries.map(|entries| entries.0).unwrap_or_default()),
        Err(error) => Err(match error.location() {
            Some(location) => UsageError::new(format!("{}: {}", place(path, location.line()), problem(&error))),
            None => refused(&problem(&error)),
        }),
    }
}

/// How messages name a line of the file.
pub(super) fn place(path: &Path, line: u64) -> String {
    format!("{}, line {line}", path.display())
}

fn problem(error: &Error) -> String {
    match error.without_snippet() {
        Error::DuplicateMappingKey { key: Some(key), .. } => format!("{key}: given twice"),
        Error::Unexpected { expected: "mapping start", .. } => "expected 'name: value'".to_owned(),
        error => {
            // The place is told anyway, and what follows a semicolon is advice for programmers.
            let message = error.to_string();
            let end = [" at line ", ";", "\n"].iter().filter_map(|mark| message.find(mark)).min();
            message.get(..end.unwrap_or(message.len())).unwrap_or_default().to_owned()
        }
    }
}

struct Entries(Vec<Entry>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Map;
        impl<'de> Visitor<'de> for Map {
            type Value = Entries;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("'name: value'")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Entries, A::Error> {
                entries(map).map(Entries)
            }
        }
        deserializer.deserialize_map(Map)
    }
}

fn entries<'de, A: MapAccess<'de>>(mut map: A) -> Result<Vec<Entry>, A::Error> {
    let mut entries = Vec::new();
    while let Some(key) = map.next_key::<Spanned<String>>()? {
        let value = map.next_value()?;
        entries.push(Entry { key: key.value, line: key.referenced.line(), value });
    }
    Ok(entries)
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Value;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value or a list of values")
            }

            fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
                Ok(Value::One(value.to_string()))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
                Ok(Value::One(value.to_string()))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
                Ok(Value::One(value.to_string()))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
                Ok(Value::One(value.to_string()))
            }

            fn visit_str<E>(self, value: &str) -> Result<Value, E> {
                Ok(Value::One(value.to_owned()))
            }

            fn visit_unit<E>(self) -> Result<Value, E> {
                Ok(Value::Nothing)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Value, A::Error> {
                entries(map).map(Value::Mapping)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
                let mut values = Vec::new();
                while let Some(value) = list.next_element()? {
                    values.push(value);
                }
                Ok(Value::List(values))
            }
        }
        deserializer.deserialize_any(Any)
    }
}
