//! The resource of a process, by OpenTelemetry's semantic conventions, version 1.42.0.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, SystemTime};

use opentelemetry_semantic_conventions::resource as key;
use rustix::fs::OFlags;
use rustix::time::ClockId;

use super::args;
use super::environment;
use super::read::{Identity, read_below};
use crate::signal::resource::{Resource, Value};

type Attributes = Vec<(Box<str>, Value)>;

/// What all resources share: the host, and what the user says of it.
///
/// The agent's own `OTEL_RESOURCE_ATTRIBUTES` apply to every traced process where they speak of the host, the
/// deployment or anything wider (`deployment.environment.name`, `cloud.region`, `service.namespace`, …), and there they
/// go before what was detected. What describes the agent itself does not apply: `service.*` but for the namespace,
/// `process.*`, `telemetry.*`, `container.*`, and the pod and container parts of `k8s.*`. Nor does its
/// `OTEL_SERVICE_NAME`: one name for everything on a host would be wrong.
#[derive(Clone, Debug)]
pub struct Common {
    attributes: Attributes,
    /// The wall-clock time of the boot, so that one process always has the same time of creation.
    boot: Option<SystemTime>,
}

impl Common {
    /// Looks at the host. `own` is the agent's own `OTEL_RESOURCE_ATTRIBUTES`; a malformed list is ignored as a whole,
    /// and told to the log.
    #[must_use]
    pub fn detect(own: Option<&str>) -> Self {
        let own = own.unwrap_or_default();
        let own = environment::attributes(own).unwrap_or_else(|| {
            tracing::warn!("OTEL_RESOURCE_ATTRIBUTES is malformed and ignored");
            Vec::new()
        });
        let mut attributes = host();
        for (key, value) in own {
            if !speaks_of_agent(&key) {
                set(&mut attributes, &key, text(value));
            }
        }
        Self { attributes, boot: boot() }
    }

    /// The resource of a process. Later ones win: the host's attributes, the agent's own, what was seen of the process'
    /// container, the process' own `OTEL_RESOURCE_ATTRIBUTES`; then, as variables are inherited and facts are not,
    /// what was seen of the process itself.
    pub(super) fn resource(&self, identity: &Identity, id: u64) -> Resource {
        let mut attributes = self.attributes.clone();
        let container = &identity.container;
        for (key, value) in [(key::CONTAINER_ID, &container.id), (key::K8S_POD_UID, &container.pod_uid)] {
            if let Some(value) = value {
                set(&mut attributes, key, text(value.as_str()));
            }
        }
        for (key, value) in &identity.environment.attributes {
            if !key.starts_with("process.") && !key.starts_with("telemetry.") {
                set(&mut attributes, key, text(value.as_str()));
            }
        }
        let service_name = identity.service_name();
        set(&mut attributes, key::SERVICE_NAME, text(service_name.as_str()));
        self.process(identity, &mut attributes);
        Resource { id, service_name: service_name.into(), attributes }
    }

    fn process(&self, identity: &Identity, attributes: &mut Attributes) {
        let launch = &identity.launch;
        set(attributes, key::PROCESS_PID, Value::Int(launch.tgid.0.into()));
        if let Some(exe) = &launch.exe {
            set(attributes, key::PROCESS_EXECUTABLE_NAME, text(super::name::base(exe)));
            set(attributes, key::PROCESS_EXECUTABLE_PATH, text(exe.as_str()));
        }
        if !launch.args.is_empty() {
            set(attributes, key::PROCESS_COMMAND_ARGS, Value::Strs(args::exported(&launch.args)));
        }
        if let Some(created) = launch.started.and_then(|ticks| self.created(ticks)) {
            set(attributes, key::PROCESS_CREATION_TIME, text(humantime::format_rfc3339_millis(created).to_string()));
        }
        if let Some(language) = identity.program.language {
            set(attributes, key::TELEMETRY_SDK_LANGUAGE, text(language));
        }
    }

    /// When a process started, from the clock ticks since boot: to 10 ms, if nobody has set the clock since.
    fn created(&self, ticks: u64) -> Option<SystemTime> {
        let per_second = procfs::ticks_per_second();
        let seconds = ticks.checked_div(per_second)?;
        let rest = ticks.checked_rem(per_second)?.checked_mul(1_000_000_000)?.checked_div(per_second)?;
        self.boot?.checked_add(Duration::from_secs(seconds))?.checked_add(Duration::from_nanos(rest))
    }
}

fn text(value: impl Into<Box<str>>) -> Value {
    Value::Str(value.into())
}

fn set(attributes: &mut Attributes, key: &str, value: Value) {
    match attributes.iter_mut().find(|(known, _)| &**known == key) {
        Some((_, known)) => *known = value,
        None => attributes.push((key.into(), value)),
    }
}

/// Whether an attribute in the agent's own environment describes the agent rather than what is around it.
fn speaks_of_agent(key: &str) -> bool {
    let prefixes = ["service.", "process.", "telemetry.", "container.", "k8s.pod.", "k8s.container."];
    key != key::SERVICE_NAMESPACE && prefixes.iter().any(|prefix| key.starts_with(prefix))
}

fn host() -> Attributes {
    let mut attributes = Attributes::new();
    set(&mut attributes, key::TELEMETRY_SDK_NAME, text("remora"));
    set(&mut attributes, key::TELEMETRY_SDK_VERSION, text(env!("CARGO_PKG_VERSION")));
    let identified = ["/etc/machine-id", "/var/lib/dbus/machine-id"].into_iter().find_map(of_host);
    // An image that was never started says `uninitialized`.
    let machine = identified.filter(|id| id.len() == 32 && id.bytes().all(|octet| octet.is_ascii_hexdigit()));
    for (key, value) in [(key::HOST_NAME, host_name()), (key::HOST_ID, machine)] {
        if let Some(value) = value {
            set(&mut attributes, key, text(value));
        }
    }
    // The names that the conventions give to what Rust calls otherwise.
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "arm" => "arm32",
        "powerpc" => "ppc32",
        "powerpc64" => "ppc64",
        other => other,
    };
    set(&mut attributes, key::HOST_ARCH, text(arch));
    set(&mut attributes, key::OS_TYPE, text("linux"));
    attributes
}

/// The host's name. The kernel's answer is the agent's own; in a container with a name of its own that is not the
/// host's, whose file is then asked.
fn host_name() -> Option<String> {
    let names = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/uts")).ok();
    let (own, of_init) = (names("self"), names("1"));
    let elsewhere = own.is_some() && of_init.is_some() && own != of_init;
    let kernels = || {
        let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
        Some(name.trim().to_owned()).filter(|name| !name.is_empty())
    };
    elsewhere.then(|| of_host("/etc/hostname")).flatten().or_else(kernels)
}

/// A short text file of the host: as process 1 sees it, which with a shared process namespace is the host's own.
fn of_host(path: &str) -> Option<String> {
    /// The longest such file.
    const OCTETS: u64 = 1024;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let read = |root: &str| {
        let root = File::from(rustix::fs::open(root, flags, rustix::fs::Mode::empty()).ok()?);
        read_below(&root, Path::new(path), OCTETS)
    };
    let octets = read("/proc/1/root").or_else(|| read("/"))?;
    let text = String::from_utf8(octets).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// When the host was booted, by the wall clock as it stands now.
fn boot() -> Option<SystemTime> {
    let up = rustix::time::clock_gettime(ClockId::Boottime);
    let up = Duration::new(u64::try_from(up.tv_sec).ok()?, u32::try_from(up.tv_nsec).ok()?);
    SystemTime::now().checked_sub(up)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::environment::Environment;
    use crate::process::read::Launch;

    fn get<'a>(resource: &'a Resource, key: &str) -> Option<&'a Value> {
        let mut found = resource.attributes.iter().filter(|(known, _)| &**known == key);
        let first = found.next();
        assert!(found.next().is_none(), "{key} comes twice");
        first.map(|(_, value)| value)
    }

    #[test]
    fn who_says_what() {
        let own = "deployment.environment.name=prod,service.name=remora,service.namespace=shop,host.name=node-1,process.pid=1,k8s.pod.uid=x,a=1";
        let common = Common::detect(Some(own));
        let attributes = environment::attributes("a=2,process.pid=7,telemetry.sdk.name=x,service.version=1.2").unwrap();
        let identity = Identity {
            launch: Launch {
                tgid: agent_common::ids::Tgid(42),
                exe: Some("/opt/orders/bin/orders".to_owned()),
                ..Launch::default()
            },
            environment: Environment { attributes, ..Environment::default() },
            ..Identity::default()
        };
        let resource = common.resource(&identity, 9);
        assert_eq!(resource.id, 9);
        assert_eq!(&*resource.service_name, "unknown_service:orders");
        let expected = [
            ("service.name", Some(text("unknown_service:orders"))),
            ("service.namespace", Some(text("shop"))),
            ("service.version", Some(text("1.2"))),
            ("deployment.environment.name", Some(text("prod"))),
            ("host.name", Some(text("node-1"))),
            ("os.type", Some(text("linux"))),
            ("process.pid", Some(Value::Int(42))),
            ("process.executable.name", Some(text("orders"))),
            ("process.executable.path", Some(text("/opt/orders/bin/orders"))),
            ("process.command_args", None),
            ("process.creation.time", None),
            ("telemetry.sdk.name", Some(text("remora"))),
            ("telemetry.sdk.language", None),
            ("container.id", None),
            ("k8s.pod.uid", None),
            ("a", Some(text("2"))),
        ];
        for (key, value) in expected {
            assert_eq!(get(&resource, key), value.as_ref(), "{key}");
        }
    }

    #[test]
    fn a_malformed_list_is_ignored_as_a_whole() {
        let common = Common::detect(Some("a=1,b"));
        assert_eq!(get(&common.resource(&Identity::default(), 1), "a"), None);
    }
}
