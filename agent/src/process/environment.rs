//! What a process's own environment says about it: OpenTelemetry's variables, and those that help naming.

use super::name::Hints;

/// The longest value kept of one variable, in octets; a longer one is as if it were not set.
const VALUE: usize = 8 * 1024;
/// The most resource attributes taken from one list.
const ATTRIBUTES: usize = 64;

/// A resource attribute: a key of the semantic conventions or of the user's own, and its value.
pub type Attribute = (String, String);

/// The variables that matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment {
    /// `OTEL_SERVICE_NAME`, not empty.
    pub service_name: Option<String>,
    /// `OTEL_RESOURCE_ATTRIBUTES`; empty when malformed.
    pub attributes: Vec<Attribute>,
    pub hints: Hints,
}

impl Environment {
    /// Takes what matters out of `/proc/<pid>/environ`: `NAME=value`, of a name that comes twice the first, as
    /// getenv(3) has it.
    pub fn from_variables(variables: impl Iterator<Item = Vec<u8>>) -> Self {
        let mut wanted = Wanted::default();
        for variable in variables {
            let Some(at) = variable.iter().position(|octet| *octet == b'=') else { continue };
            let (name, value) = variable.split_at(at);
            let Some(slot) = wanted.slot(name) else { continue };
            let value = value.get(1..).unwrap_or_default();
            if slot.is_none() && value.len() <= VALUE {
                *slot = std::str::from_utf8(value).ok().map(str::to_owned);
            }
        }
        let filled = |value: Option<String>| value.filter(|value| !value.trim().is_empty());
        Self {
            service_name: filled(wanted.service_name),
            attributes: wanted.attributes.and_then(|list| attributes(&list)).unwrap_or_default(),
            hints: Hints {
                flask: filled(wanted.flask),
                npm: filled(wanted.npm),
                // `name` alone is anybody's.
                pm2: filled(wanted.name).filter(|_| wanted.pm_id.is_some()),
                spring: filled(wanted.spring),
            },
        }
    }
}

#[derive(Default)]
struct Wanted {
    service_name: Option<String>,
    attributes: Option<String>,
    flask: Option<String>,
    npm: Option<String>,
    name: Option<String>,
    pm_id: Option<String>,
    spring: Option<String>,
}

impl Wanted {
    fn slot(&mut self, name: &[u8]) -> Option<&mut Option<String>> {
        Some(match name {
            b"OTEL_SERVICE_NAME" => &mut self.service_name,
            b"OTEL_RESOURCE_ATTRIBUTES" => &mut self.attributes,
            b"FLASK_APP" => &mut self.flask,
            b"npm_package_name" => &mut self.npm,
            b"name" => &mut self.name,
            b"pm_id" => &mut self.pm_id,
            b"SPRING_APPLICATION_NAME" => &mut self.spring,
            _ => return None,
        })
    }
}

/// Reads a list of resource attributes, `key1=value1,key2=value2`, keys and values percent-encoded (OpenTelemetry
/// specification, "Resource SDK", "Specifying resource information via an environment variable"). `None` for a list
/// with any error in it, which is to be ignored as a whole. Of a key that comes twice the last counts.
#[must_use]
pub fn attributes(list: &str) -> Option<Vec<Attribute>> {
    let mut attributes: Vec<Attribute> = Vec::new();
    for member in list.split(',') {
        if member.trim().is_empty() {
            continue;
        }
        let (key, value) = member.split_once('=')?;
        let (key, value) = (decoded(key.trim())?, decoded(value.trim())?);
        if key.is_empty() || attributes.len() >= ATTRIBUTES {
            return None;
        }
        attributes.retain(|(known, _)| *known != key);
        attributes.push((key, value));
    }
    Some(attributes)
}

/// `text` with each `%` and two hexadecimal digits replaced by the octet they stand for (RFC 3986, section 2.1);
/// `None` where that is not what follows a `%`, or the whole is no UTF-8.
fn decoded(text: &str) -> Option<String> {
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(octet) = rest.next() {
        if octet != b'%' {
            octets.push(octet);
            continue;
        }
        let digit = |octet: Option<u8>| char::from(octet?).to_digit(16);
        let value = digit(rest.next())? * 16 + digit(rest.next())?;
        octets.push(u8::try_from(value).ok()?);
    }
    String::from_utf8(octets).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(list: &[(&str, &str)]) -> Vec<Attribute> {
        list.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn lists_of_attributes() {
        type Case<'a> = (&'a str, Option<&'a [(&'a str, &'a str)]>);
        let cases: [Case<'_>; 13] = [
            ("", Some(&[])),
            ("a=b", Some(&[("a", "b")])),
            (" a = b , c=d ", Some(&[("a", "b"), ("c", "d")])),
            ("service.name=shop%20orders,x=%C3%A9", Some(&[("service.name", "shop orders"), ("x", "é")])),
            ("a%2Cb=c%3Dd", Some(&[("a,b", "c=d")])),
            ("a=b=c", Some(&[("a", "b=c")])),
            ("a=1,a=2", Some(&[("a", "2")])),
            ("a=", Some(&[("a", "")])),
            ("a=b,", Some(&[("a", "b")])),
            ("a=b,c", None),
            ("=b", None),
            ("a=%zz", None),
            ("a=%ff,b=c", None),
        ];
        for (list, expected) in cases {
            assert_eq!(attributes(list), expected.map(pairs), "{list}");
        }
    }

    #[test]
    fn variables() {
        let given = [
            "PATH=/bin",
            "OTEL_SERVICE_NAME=orders",
            "OTEL_SERVICE_NAME=later",
            "name=x",
            "odd",
            "=",
            "npm_package_name=web",
        ];
        let environment = Environment::from_variables(given.iter().map(|text| text.as_bytes().to_vec()));
        assert_eq!(environment.service_name.as_deref(), Some("orders"));
        assert_eq!(environment.hints, Hints { npm: Some("web".to_owned()), ..Hints::default() });
        let pm2 = [b"name=shop".to_vec(), b"pm_id=0".to_vec()];
        assert_eq!(Environment::from_variables(pm2.into_iter()).hints.pm2.as_deref(), Some("shop"));
        let long = [[b"OTEL_SERVICE_NAME=".as_slice(), &[b'x'; VALUE + 1]].concat()];
        assert_eq!(Environment::from_variables(long.into_iter()), Environment::default());
    }
}
