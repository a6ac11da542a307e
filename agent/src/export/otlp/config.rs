//! The OTLP exporter's settings, from the environment variables of the OpenTelemetry specification ("OpenTelemetry
//! Protocol Exporter" and "Environment Variable Specification").

use std::str::FromStr;
use std::time::Duration;

use http::uri::{PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use percent_encoding::percent_decode_str;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::export::queue::Limits;

/// How long a request may take, from its connection to the end of its answer.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
const DEFAULT_QUEUE_SPANS: usize = 65_536;
/// Keeps the whole agent in its memory budget while an endpoint is dead.
const DEFAULT_QUEUE_BYTES: usize = 8 << 20;
const DEFAULT_BATCH_SPANS: usize = 2048;
/// Keeps a request below the 4 MiB that gRPC servers take by default.
const BATCH_BYTES: usize = 1 << 20;
const DEFAULT_DELAY: Duration = Duration::from_secs(1);
/// One hour: larger values are mistakes, and the sum with a moment must not overflow.
const MAX_MILLIS: u64 = 3_600_000;

/// What is exported; each signal may have its own endpoint and settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    Traces,
    Metrics,
}

impl Signal {
    const fn infix(self) -> &'static str {
        match self {
            Self::Traces => "TRACES_",
            Self::Metrics => "METRICS_",
        }
    }

    /// What the general endpoint is followed by (OTLP specification, "OTLP/HTTP Request").
    const fn http_path(self) -> &'static str {
        match self {
            Self::Traces => "/v1/traces",
            Self::Metrics => "/v1/metrics",
        }
    }

    const fn grpc_path(self) -> &'static str {
        match self {
            Self::Traces => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            Self::Metrics => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Grpc,
    HttpProtobuf,
}

/// Certificates and key for TLS, read from their files.
#[derive(Debug, Default)]
pub struct Tls {
    /// Who may sign the server's certificate; empty: whom the host trusts.
    pub roots: Vec<CertificateDer<'static>>,
    /// The client's own chain and key, for servers that ask.
    pub identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
}

/// Where and how one signal is exported.
#[derive(Debug)]
pub struct OtlpConfig {
    /// Absolute, `http` or `https`, with the path that requests go to.
    pub endpoint: Uri,
    pub protocol: Protocol,
    /// Sent with every request; the values are marked sensitive.
    pub headers: HeaderMap,
    /// For each attempt.
    pub timeout: Duration,
    pub gzip: bool,
    /// Read also when the endpoint is `http`, so that a wrong file name is found early.
    pub tls: Tls,
    pub limits: Limits,
}

/// A variable with a value that cannot be used. The value is not repeated, since headers and URLs hold secrets.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{variable}: {problem}")]
pub struct ConfigError {
    pub variable: String,
    /// What is wrong, and what is accepted.
    pub problem: String,
}

/// A value that was set, with the name it was set by.
struct Setting {
    variable: String,
    value: String,
    /// Set for this signal and not for all.
    specific: bool,
}

impl Setting {
    fn error(&self, problem: impl Into<String>) -> ConfigError {
        ConfigError { variable: self.variable.clone(), problem: problem.into() }
    }

    fn number(&self, least: u64, most: u64, unit: &str) -> Result<u64, ConfigError> {
        match self.value.parse() {
            Ok(number) if (least..=most).contains(&number) => Ok(number),
            _ => Err(self.error(format!("must be a number of {unit} from {least} to {most}"))),
        }
    }

    fn count(&self, most: usize, unit: &str) -> Result<usize, ConfigError> {
        Ok(usize::try_from(self.number(1, most as u64, unit)?).unwrap_or(most))
    }

    /// All of one kind in a PEM file, at least one.
    fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
        let wrong =
            |error: &dyn std::fmt::Display| self.error(format!("must name a PEM file with certificates: {error}"));
        let all: Result<Vec<_>, _> =
            CertificateDer::pem_file_iter(&self.value).map_err(|error| wrong(&error))?.collect();
        match all {
            Ok(all) if all.is_empty() => Err(wrong(&"none in it")),
            all => all.map_err(|error| wrong(&error)),
        }
    }
}

/// Looks variables up; an empty value counts as unset, as the specification says.
struct Env<'a> {
    signal: Signal,
    get: &'a dyn Fn(&str) -> Option<String>,
}

impl Env<'_> {
    fn plain(&self, variable: &str) -> Option<Setting> {
        let value = (self.get)(variable)?.trim().to_owned();
        (!value.is_empty()).then(|| Setting { variable: variable.to_owned(), value, specific: false })
    }

    /// `OTEL_EXPORTER_OTLP_TRACES_…` before `OTEL_EXPORTER_OTLP_…`.
    fn otlp(&self, name: &str) -> Option<Setting> {
        let specific = self.plain(&format!("OTEL_EXPORTER_OTLP_{}{name}", self.signal.infix()));
        let specific = specific.map(|setting| Setting { specific: true, ..setting });
        specific.or_else(|| self.plain(&format!("OTEL_EXPORTER_OTLP_{name}")))
    }
}

impl OtlpConfig {
    /// The settings of `signal` from the variables that `get` knows; `None` when no endpoint is set.
    ///
    /// # Errors
    /// The first variable whose value cannot be used, whether or not it would matter for the protocol chosen.
    pub fn from_env(signal: Signal, get: &dyn Fn(&str) -> Option<String>) -> Result<Option<Self>, ConfigError> {
        let env = Env { signal, get };
        let Some(endpoint) = env.otlp("ENDPOINT") else { return Ok(None) };
        let protocol = match env.otlp("PROTOCOL") {
            None => Protocol::HttpProtobuf,
            Some(setting) => match &*setting.value {
                "grpc" => Protocol::Grpc,
                "http/protobuf" => Protocol::HttpProtobuf,
                "http/json" => {
                    return Err(setting.error("http/json is not supported; must be grpc or http/protobuf"));
                }
                _ => return Err(setting.error("must be grpc or http/protobuf")),
            },
        };
        let insecure = match env.otlp("INSECURE") {
            None => false,
            Some(setting) if setting.value.eq_ignore_ascii_case("true") => true,
            Some(setting) if setting.value.eq_ignore_ascii_case("false") => false,
            Some(setting) => return Err(setting.error("must be true or false")),
        };
        let gzip = match env.otlp("COMPRESSION") {
            None => false,
            Some(setting) => match &*setting.value {
                "gzip" => true,
                "none" => false,
                _ => return Err(setting.error("must be gzip or none")),
            },
        };
        let timeout = match env.otlp("TIMEOUT") {
            None => DEFAULT_TIMEOUT,
            Some(setting) => Duration::from_millis(setting.number(1, MAX_MILLIS, "milliseconds")?),
        };
        Ok(Some(Self {
            endpoint: endpoint_uri(signal, protocol, insecure, &endpoint)?,
            protocol,
            headers: env.otlp("HEADERS").map_or_else(|| Ok(HeaderMap::new()), |setting| headers(&setting))?,
            timeout,
            gzip,
            tls: tls(&env)?,
            limits: limits(&env)?,
        }))
    }
}

/// The address of requests. One set for the signal is used as it is; a general one is a base, to which OTLP/HTTP adds
/// the signal's path. The path of gRPC is that of its service, always.
fn endpoint_uri(signal: Signal, protocol: Protocol, insecure: bool, setting: &Setting) -> Result<Uri, ConfigError> {
    let wrong = || setting.error("must be a URL such as http://localhost:4318 or https://collector.example:4317");
    let value = match (protocol, setting.value.contains("://")) {
        (Protocol::Grpc, false) => {
            let scheme = if insecure { "http" } else { "https" };
            format!("{scheme}://{}", setting.value)
        }
        _ => setting.value.clone(),
    };
    let mut parts = Uri::from_str(&value).map_err(|_| wrong())?.into_parts();
    if !parts.scheme.as_ref().is_some_and(|scheme| [Scheme::HTTP, Scheme::HTTPS].contains(scheme)) {
        return Err(wrong());
    }
    match &parts.authority {
        Some(authority) if authority.host().is_empty() => return Err(wrong()),
        // Would otherwise be sent as part of `Host`.
        Some(authority) if authority.as_str().contains('@') => {
            return Err(setting.error("must hold no user name; put credentials into OTEL_EXPORTER_OTLP_HEADERS"));
        }
        _ => {}
    }
    let path = match protocol {
        Protocol::Grpc => PathAndQuery::from_static(signal.grpc_path()),
        Protocol::HttpProtobuf => {
            let given = parts.path_and_query.unwrap_or(PathAndQuery::from_static("/"));
            if setting.specific {
                given
            } else {
                let base = given.path().trim_end_matches('/');
                let query = given.query().map_or_else(String::new, |query| format!("?{query}"));
                PathAndQuery::try_from(format!("{base}{}{query}", signal.http_path())).map_err(|_| wrong())?
            }
        }
    };
    parts.path_and_query = Some(path);
    Uri::from_parts(parts).map_err(|_| wrong())
}

/// `key=value` pairs between commas, both percent-encoded, spaces around them ignored (W3C Baggage's form without
/// properties).
fn headers(setting: &Setting) -> Result<HeaderMap, ConfigError> {
    let wrong = || setting.error("must be key=value pairs between commas, with percent-encoding where needed");
    let mut headers = HeaderMap::new();
    for pair in setting.value.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').ok_or_else(wrong)?;
        let name = percent_decode_str(name.trim()).decode_utf8().map_err(|_| wrong())?;
        let value: Vec<u8> = percent_decode_str(value.trim()).collect();
        let name = HeaderName::from_str(&name).map_err(|_| wrong())?;
        let mut value = HeaderValue::from_bytes(&value).map_err(|_| wrong())?;
        value.set_sensitive(true);
        headers.append(name, value);
    }
    Ok(headers)
}

fn tls(env: &Env<'_>) -> Result<Tls, ConfigError> {
    let roots = env.otlp("CERTIFICATE").map_or_else(|| Ok(Vec::new()), |setting| setting.certificates())?;
    let identity = match (env.otlp("CLIENT_CERTIFICATE"), env.otlp("CLIENT_KEY")) {
        (None, None) => None,
        (Some(chain), Some(key)) => {
            let private = PrivateKeyDer::from_pem_file(&key.value)
                .map_err(|error| key.error(format!("must name a PEM file with a private key: {error}")))?;
            Some((chain.certificates()?, private))
        }
        (Some(one), None) => return Err(one.error("needs OTEL_EXPORTER_OTLP_CLIENT_KEY as well")),
        (None, Some(one)) => return Err(one.error("needs OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE as well")),
    };
    Ok(Tls { roots, identity })
}

/// The `OTEL_BSP_…` variables of the SDKs' batch span processor, with our defaults, and `REMORA_OTLP_QUEUE_BYTES`.
fn limits(env: &Env<'_>) -> Result<Limits, ConfigError> {
    const MOST: usize = 1 << 24;
    let count = |name, default, most, unit| env.plain(name).map_or(Ok(default), |setting| setting.count(most, unit));
    let spans = count("OTEL_BSP_MAX_QUEUE_SIZE", DEFAULT_QUEUE_SPANS, MOST, "spans")?;
    let batch_spans = count("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", DEFAULT_BATCH_SPANS.min(spans), MOST, "spans")?;
    let delay = match env.plain("OTEL_BSP_SCHEDULE_DELAY") {
        None => DEFAULT_DELAY,
        Some(setting) => Duration::from_millis(setting.number(0, MAX_MILLIS, "milliseconds")?),
    };
    let bytes = count("REMORA_OTLP_QUEUE_BYTES", DEFAULT_QUEUE_BYTES, 1 << 40, "octets")?;
    if batch_spans > spans {
        let problem = format!("must not be larger than OTEL_BSP_MAX_QUEUE_SIZE, which is {spans}");
        return Err(ConfigError { variable: "OTEL_BSP_MAX_EXPORT_BATCH_SIZE".to_owned(), problem });
    }
    Ok(Limits { spans, bytes, batch_spans, batch_bytes: BATCH_BYTES, delay })
}

#[cfg(test)]
mod tests;
