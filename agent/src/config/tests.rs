use std::io::Write as _;

use super::*;
use crate::sampling::Origin;
use crate::trace::{Percentile, SdkSpans};

/// The outcome of a command line with these variables and this file (named `remora.yaml` in messages).
fn outcome(flags: &[&str], variables: &[(&str, &str)], file: Option<&str>) -> Result<Command, Stop> {
    let mut at = tempfile::NamedTempFile::new().unwrap();
    let mut args: Vec<OsString> = vec!["remora".into()];
    args.extend(flags.iter().map(OsString::from));
    if let Some(text) = file {
        at.write_all(text.as_bytes()).unwrap();
        args.extend(["--config".into(), at.path().into()]);
    }
    let lookup =
        |name: &str| variables.iter().find(|(variable, _)| *variable == name).map(|(_, value)| (*value).to_owned());
    from_command_line(args, &lookup).map_err(|stop| match stop {
        Stop::Usage(error) => {
            let path = at.path().display().to_string();
            Stop::Usage(UsageError::new(error.to_string().replace(&path, "remora.yaml")))
        }
        page => page,
    })
}

fn config(flags: &[&str], variables: &[(&str, &str)], file: Option<&str>) -> Config {
    match outcome(flags, variables, file) {
        Ok(Command::Run(config)) => config,
        other => panic!("{flags:?} {variables:?} {file:?}: {other:?}"),
    }
}

#[track_caller]
fn refused(flags: &[&str], variables: &[(&str, &str)], file: Option<&str>, expected: &str) {
    match outcome(flags, variables, file) {
        Err(Stop::Usage(error)) => {
            let message = error.to_string();
            assert!(!message.contains('\n'), "{message:?} is one line");
            assert!(message.starts_with(expected), "{message:?} begins with {expected:?}");
        }
        other => panic!("{flags:?} {variables:?} {file:?}: {other:?}"),
    }
}

#[test]
fn clap_finds_no_fault() {
    Cli::command().debug_assert();
}

/// `RENEW=1 cargo test -p agent help_is_as_stored` writes the file anew.
#[test]
fn help_is_as_stored() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/config/help.txt");
    let help = Cli::command().render_help().to_string();
    if std::env::var_os("RENEW").is_some() {
        std::fs::write(path, &help).unwrap();
    }
    let stored = std::fs::read_to_string(path).unwrap();
    assert!(stored == help, "the help has changed; RENEW=1 cargo test -p agent help_is_as_stored stores this:\n{help}");
}

#[test]
fn every_flag_but_help_and_version_is_in_the_help_with_one_line() {
    let help = Cli::command().render_help().to_string();
    for arg in Cli::command().get_arguments() {
        let flag = arg.get_long().unwrap();
        assert_eq!(help.lines().filter(|line| line.contains(&format!(" --{flag}"))).count(), 1, "--{flag}");
        assert!(arg.get_long_help().is_none(), "--{flag}");
    }
}

#[test]
fn defaults() {
    let config = config(&[], &[], None);
    assert_eq!(config.listen.to_string(), "127.0.0.1:9464");
    assert_eq!((config.spans, config.quiet), (None, false));
    let Selection { exe, pids, ports, exclude_exe, exclude_ports } = config.selection;
    assert!(
        exe.is_empty() && pids.is_empty() && ports.is_empty() && exclude_exe.is_empty() && exclude_ports.is_empty()
    );
    assert_eq!((config.propagate, config.sampler), (Propagate::Off, Sampler::default()));
    assert_eq!(config.max_traces_per_second, None);
    assert_eq!((config.keep, config.sdk_spans), (Keep::default(), SdkSpans::LeaveOut));
    assert!(config.capture_request_headers.is_empty() && config.capture_response_headers.is_empty());
    assert!(!config.capture_message_key);
    assert_eq!((config.hooks, config.tls, config.segment_ring), (Hooks::Auto, true, 8 << 20));
    assert_eq!(config.log.to_string(), "info");
}

#[test]
fn flags_before_and_after_the_subcommand() {
    for flags in [
        &["--spans", "x", "--port", "80", "--port", "81", "--config", "CONFIG"][..],
        &["run", "--spans=x", "--port=81", "--port=80"],
        &["--port", "80", "run", "--port", "81", "--spans", "x"],
        &["--spans", "x", "--port", "80", "--port", "81", "run"],
    ] {
        let flags: Vec<_> =
            flags.iter().copied().filter(|flag| !flag.to_ascii_lowercase().contains("config")).collect();
        let config = config(&flags, &[], None);
        assert_eq!(config.spans, Some(SpansTo::File("x".into())), "{flags:?}");
        let mut ports = config.selection.ports;
        ports.sort_unstable();
        assert_eq!(ports, [80, 81], "{flags:?}");
    }
    for (flags, expected) in
        [(&["check"][..], false), (&["check", "--json"], true), (&["--pid=1", "check", "--json"], true)]
    {
        match outcome(flags, &[], None) {
            Ok(Command::Check { json, .. }) => assert_eq!(json, expected, "{flags:?}"),
            other => panic!("{flags:?}: {other:?}"),
        }
    }
}

#[test]
fn a_flag_wins_over_a_variable_over_the_file() {
    let file = "listen: 127.0.0.1:3\nport: [3, 33]\nquiet: true\nsegment-ring: 1MiB\npid: 7\n";
    let variables = [("REMORA_LISTEN", "127.0.0.1:2"), ("REMORA_PORT", "2,22"), ("REMORA_QUIET", "false")];
    let all = config(&["--listen", "127.0.0.1:1", "--port", "1"], &variables, Some(file));
    assert_eq!((all.listen.port, all.selection.ports, all.quiet), (1, vec![1], false));
    assert_eq!((all.segment_ring, all.selection.pids), (1 << 20, vec![7]));
    let two = config(&[], &variables, Some(file));
    assert_eq!((two.listen.port, two.selection.ports, two.quiet), (2, vec![2, 22], false));
    let one = config(&[], &[], Some(file));
    assert_eq!((one.listen.port, one.selection.ports, one.quiet), (3, vec![3, 33], true));
    assert!(!config(&["--quiet=false"], &[], Some(file)).quiet);
}

/// Everything that can be set has a variable and a key; a flag without one would fail here.
#[test]
fn all_settings_by_variable_and_by_key() {
    let settings: [(&str, &str); 25] = [
        ("exe", "nginx"),
        ("pid", "12"),
        ("port", "80"),
        ("exclude-exe", "/usr/bin/*"),
        ("exclude-port", "22"),
        ("listen", "[::1]:0"),
        ("spans", "-"),
        ("capture-request-header", "X-Request-Id"),
        ("capture-response-header", "x-cache"),
        ("capture-message-key", "true"),
        ("log", "info,agent::probe=debug"),
        ("quiet", "on"),
        ("max-traces-per-second", "100"),
        ("keep-errors", "true"),
        ("keep-slower-than", "250ms"),
        ("keep-slowest", "p99.9"),
        ("request-id-header", "Correlation"),
        ("link-floor", "0.75"),
        ("link-hold-back", "2s"),
        ("sdk-spans", "keep"),
        ("propagate", "headers"),
        ("unsafe", "true"),
        ("hooks", "calls"),
        ("tls", "false"),
        ("segment-ring", "65536"),
    ];
    let known: Vec<String> = Cli::command()
        .get_arguments()
        .filter_map(|arg| arg.get_long().map(str::to_owned))
        .filter(|flag| flag != "config")
        .collect();
    assert_eq!(known, settings.map(|(flag, _)| flag.to_owned()));
    let variables: Vec<_> = settings.iter().map(|(flag, value)| (layer::variable_of(flag), *value)).collect();
    let variables: Vec<_> = variables.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    let keys: String = settings.iter().map(|(flag, value)| format!("{flag}: '{value}'\n")).collect();
    let flags: Vec<_> = settings.iter().map(|(flag, value)| format!("--{flag}={value}")).collect();
    let flags: Vec<_> = flags.iter().map(String::as_str).collect();
    for config in [
        config(&flags, &[], None),
        config(&[], &variables, None),
        config(&[], &[], Some(&keys)),
        config(
            &[],
            &[],
            Some(
                &keys
                    .replace('-', "_")
                    .replace("'_'", "'-'")
                    .replace("X_Request_Id", "x-request-id")
                    .replace("x_cache", "x-cache"),
            ),
        ),
    ] {
        assert_eq!(config.selection.exe, ["nginx"]);
        assert_eq!(
            (config.selection.pids, config.selection.ports, config.selection.exclude_ports),
            (vec![12], vec![80], vec![22])
        );
        assert_eq!(config.selection.exclude_exe, ["/usr/bin/*"]);
        assert_eq!(config.listen, Listen { host: "::1".into(), port: 0 });
        assert_eq!(config.listen.to_string(), "[::1]:0");
        assert_eq!(config.spans, Some(SpansTo::StandardOutput));
        assert_eq!(config.capture_request_headers, ["x-request-id"]);
        assert_eq!(config.capture_response_headers, ["x-cache"]);
        assert!(config.capture_message_key);
        assert_eq!(config.log.to_string(), "agent::probe=debug,info");
        assert!(config.quiet);
        assert_eq!(config.max_traces_per_second, NonZeroU32::new(100));
        assert_eq!(
            config.keep,
            Keep { errors: true, slower_than: Some(250_000_000), slowest: Percentile::new(99_900) }
        );
        assert_eq!(config.request_id_headers, ["correlation"]);
        assert!((config.causality.floor - 0.75).abs() < f64::EPSILON);
        assert_eq!(config.causality.hold_back, 2_000_000_000);
        assert_eq!(config.sdk_spans, SdkSpans::Keep);
        assert_eq!(config.segment_ring, 64 << 10);
    }
}

#[test]
fn lists_in_variables() {
    let exe = |value| config(&[], &[("REMORA_EXE", value)], None).selection.exe;
    assert_eq!(exe("nginx, python3*,"), ["nginx", "python3*"]);
    assert_eq!(exe("/usr/{bin,sbin}/nginx,[a,b]x"), ["/usr/{bin,sbin}/nginx", "[a,b]x"]);
    assert_eq!(exe(""), Vec::<String>::new());
}

#[test]
fn the_file_may_be_named_by_a_variable() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"port: 8080\n").unwrap();
    let path = file.path().to_str().unwrap();
    assert_eq!(config(&[], &[("REMORA_CONFIG", path)], None).selection.ports, [8080]);
    refused(&["--config", "/nowhere/x.yaml"], &[("REMORA_CONFIG", path)], None, "/nowhere/x.yaml: cannot be read: ");
}

#[test]
fn files_that_set_nothing() {
    for file in ["", "\n", "# only a comment\n", "---\n", "{}", "exe: []\n"] {
        assert!(config(&[], &[], Some(file)).selection.exe.is_empty(), "{file:?}");
    }
}

#[test]
fn good_values() {
    let listen = |text| config(&["--listen", text], &[], None).listen;
    for (text, host, port) in [
        ("0.0.0.0:80", "0.0.0.0", 80),
        ("[fe80::1]:65535", "fe80::1", 65535),
        ("localhost:0", "localhost", 0),
        ("node-1.example.org:9464", "node-1.example.org", 9464),
    ] {
        assert_eq!(listen(text), Listen { host: host.into(), port });
        assert_eq!(listen(text).to_string(), text);
    }
    let ring = |text| config(&["--segment-ring", text], &[], None).segment_ring;
    for (text, octets) in [("65536", 65536), ("64KiB", 65536), ("64 k", 65536), ("1GiB", 1 << 30), ("16m", 16 << 20)] {
        assert_eq!(ring(text), octets, "{text}");
    }
    for (text, thousandths) in
        [("p50", 50_000), ("p99", 99_000), ("p99.9", 99_900), ("p99.999", 99_999), ("p95.25", 95_250)]
    {
        assert_eq!(config(&["--keep-slowest", text], &[], None).keep.slowest, Percentile::new(thousandths), "{text}");
    }
    let log = |text| config(&["--log", text], &[], None).log.to_string();
    for (text, expected) in [("off", "off"), ("WARN", "warn"), ("warn, agent=trace", "agent=trace,warn")] {
        assert_eq!(log(text), expected);
    }
}

#[test]
fn bad_flags() {
    for (flags, expected) in [
        (&["--lisen", "x"][..], "unexpected argument '--lisen' found; a similar argument exists: '--listen'"),
        (&["chek"], "unrecognized subcommand 'chek'; a similar subcommand exists: 'check'"),
        (&["run", "x"], "unexpected argument 'x' found"),
        (&["run", "check"], "unexpected argument 'check' found"),
        (&["--json"], "unexpected argument '--json' found"),
        (&["--a\nb"], "unexpected argument '--a"),
        (&["--listen"], "--listen: expected a value"),
        (&["--spans", ""], "--spans: expected a value"),
        (&["--listen=1.1.1.1:1", "--listen=1.1.1.1:2"], "--listen: given twice"),
        (&["--quiet", "--quiet"], "--quiet: given twice"),
        (&["--quiet=maybe"], "--quiet: expected true or false, not 'maybe'"),
        (&["--listen", "9464"], "--listen: expected HOST:PORT such as 127.0.0.1:9464"),
        (&["--listen", ":9464"], "--listen: expected HOST:PORT"),
        (&["--listen", "1.2.3.4.5:9464"], "--listen: expected HOST:PORT"),
        (&["--listen", "::1:9464x"], "--listen: expected HOST:PORT"),
        (&["--listen", "a:65536"], "--listen: expected HOST:PORT"),
        (&["--listen", "http://a:1"], "--listen: expected HOST:PORT"),
        (&["--port", "0"], "--port: expected a port from 1 to 65535, not '0'"),
        (&["--port", "+80"], "--port: expected a port from 1 to 65535, not '+80'"),
        (&["--exclude-port", "65536"], "--exclude-port: expected a port from 1 to 65535, not '65536'"),
        (&["--pid", "-1"], "--pid: expected a process id from 1 to 4194304, not '-1'"),
        (&["--pid", "0"], "--pid: expected a process id from 1 to 4194304"),
        (&["--exe", "[a"], "--exe: expected a glob such as 'python3*' or '/usr/bin/*': error parsing glob '[a'"),
        (&["--exe", ""], "--exe: expected a glob"),
        (
            &["--segment-ring", "5MiB"],
            "--segment-ring: expected a power of two from 64KiB to 1GiB, such as 8MiB, not '5MiB'",
        ),
        (&["--segment-ring", "32KiB"], "--segment-ring: expected a power of two"),
        (&["--segment-ring", "2GiB"], "--segment-ring: expected a power of two"),
        (&["--segment-ring", "8MB"], "--segment-ring: expected a power of two"),
        (&["--segment-ring", "99999999999999999999GiB"], "--segment-ring: expected a power of two"),
        (&["--segment-ring", "18014398509481984k"], "--segment-ring: expected a power of two"),
        (&["--segment-ring", ""], "--segment-ring: expected a power of two"),
        (&["--unsafe"], "--unsafe: only --propagate headers asks for it"),
        (&["--unsafe", "--propagate", "tcp"], "--unsafe: only --propagate headers asks for it"),
        (&["--hooks", "kprobes"], "--hooks: expected 'auto', 'sockets' or 'calls', not 'kprobes'"),
        (&["--propagate", "on"], "--propagate: expected off, tcp or headers, not 'on'"),
        (&["--keep-slowest", "99"], "--keep-slowest: expected a percentile from p50 to p99.999, such as p99, not '99'"),
        (&["--keep-slowest", "p100"], "--keep-slowest: expected a percentile"),
        (&["--keep-slowest", "p49.999"], "--keep-slowest: expected a percentile"),
        (&["--keep-slowest", "p99.9999"], "--keep-slowest: expected a percentile"),
        (&["--keep-slowest", "p99."], "--keep-slowest: expected a percentile"),
        (&["--keep-slowest", "p+99"], "--keep-slowest: expected a percentile"),
        (&["--keep-slowest", "p99999999999999999999"], "--keep-slowest: expected a percentile"),
        (&["--sdk-spans", "off"], "--sdk-spans: expected leave-out or keep, not 'off'"),
        (&["--log", "verbose"], "--log: expected off, error, warn, info, debug or trace"),
        (&["--log", "3"], "--log: expected off"),
        (&["--log", "info,"], "--log: expected off"),
        (&["--log", "=info"], "--log: expected off"),
        (
            &["--max-traces-per-second", "0"],
            "--max-traces-per-second: expected a number of traces a second from 1 to 1000000",
        ),
        (
            &["--capture-request-header", "a b"],
            "--capture-request-header: expected the name of a header such as x-request-id",
        ),
        (&["--capture-response-header", ""], "--capture-response-header: expected the name of a header"),
    ] {
        refused(flags, &[], None, expected);
    }
}

#[test]
fn bad_variables() {
    refused(&[], &[("REMORA_PORT", "80,x")], None, "REMORA_PORT: expected a port from 1 to 65535, not 'x'");
    refused(&[], &[("REMORA_LISTEN", "x")], None, "REMORA_LISTEN: expected HOST:PORT");
    refused(&["--listen=1.1.1.1:1"], &[("REMORA_LISTEN", "x")], None, "REMORA_LISTEN: expected HOST:PORT");
    refused(&[], &[("REMORA_QUIET", "perhaps")], None, "REMORA_QUIET: expected true or false");
    refused(&[], &[("OTEL_TRACES_SAMPLER", "some")], None, "OTEL_TRACES_SAMPLER: expected always_on, always_off");
}

#[test]
fn bad_files() {
    for (file, expected) in [
        ("exe: nginx\n\nlisen: x\n", "remora.yaml, line 3: unknown key 'lisen', did you mean 'listen'?"),
        ("Port: 80\n", "remora.yaml, line 1: unknown key 'Port', did you mean 'port'?"),
        ("help: 1\n", "remora.yaml, line 1: unknown key 'help'"),
        ("config: x\n", "remora.yaml, line 1: unknown key 'config'"),
        ("'listen=': x\n", "remora.yaml, line 1: unknown key 'listen='"),
        ("port: 70000\n", "remora.yaml, line 1: port: expected a port from 1 to 65535, not '70000'"),
        ("port: 1\nport: 2\n", "remora.yaml, line 2: port: given twice"),
        ("segment-ring: 1\nsegment_ring: 2\n", "remora.yaml, line 1: segment-ring: expected a power of two"),
        ("exclude-port: 1\nexclude_port: 2\n", "remora.yaml, line 2: exclude_port: given twice"),
        ("listen: [a, b]\n", "remora.yaml, line 1: listen: expected one value, not a list"),
        ("\nexe:\n", "remora.yaml, line 2: exe: expected a value or a list of values"),
        ("exe: [~]\n", "remora.yaml, line 1: exe: expected a value or a list of values"),
        ("port: [[1]]\n", "remora.yaml, line 1: port: expected a value or a list of values"),
        ("port: {a: b}\n", "remora.yaml, line 1: port: expected a value or a list of values"),
        ("- a\n", "remora.yaml, line 1: expected 'name: value'"),
        ("words\n", "remora.yaml, line 1: expected 'name: value'"),
        ("exe: *nginx\n", "remora.yaml, line 1: alias references unknown anchor"),
        ("a: b: c\n", "remora.yaml, line 1: mapping values are not allowed"),
        ("exe: \"x\n", "remora.yaml, line "),
        ("port: 1\n---\nport: 2\n", "remora.yaml, line 3: multiple YAML documents detected"),
    ] {
        refused(&[], &[], Some(file), expected);
    }
    refused(&["--config", "/dev/zero"], &[], None, "/dev/zero: larger than 1 MiB");
    refused(&["--config", "/"], &[], None, "/: cannot be read: ");
}

/// Which of the rules of a file decides shows in what is kept; the rest of sampling is tested with the sampler.
#[test]
fn rules_of_sampling() {
    let kept = |file: &str, service: &str, target: &str| {
        let config = config(&["--port", "1"], &[("OTEL_TRACES_SAMPLER", "always_off")], Some(file));
        config.sampler.decide([0xff; 16], None, Origin { service, target: Some(target) }).sampled
    };
    let file = "port: [2]\nsampling:\n  - {service: 'shop*', route: /health, ratio: 0}\n  - service: shop*\n    ratio: '0.5'\n";
    assert!(kept(file, "shop-1", "/") && !kept(file, "shop-1", "/health?x") && !kept(file, "other", "/"));
    assert!(kept("sampling: [{ratio: 1}]", "any", "/") && kept("sampling: [{ratio: 1e-3}]", "any", "/"));
    assert!(!kept("sampling: []\n", "any", "/"));
    assert!(!config(&[], &[], None).sampler.has_rules());
}

#[test]
fn bad_rules_of_sampling() {
    for (file, expected) in [
        ("sampling: 0.5\n", "line 1: sampling: expected a list of rules such as {service: 'shop*',"),
        ("sampling:\n", "line 1: sampling: expected a list of rules"),
        ("\nsampling: {ratio: 1}\n", "line 2: sampling: expected a list of rules"),
        ("sampling: [0.5]\n", "line 1: sampling: expected a list of rules"),
        ("sampling: [[{ratio: 1}]]\n", "line 1: sampling: expected a list of rules"),
        ("sampling: [{}]\n", "line 1: sampling: a rule needs a ratio from 0 to 1"),
        ("sampling:\n - service: a\n", "line 2: sampling: a rule needs a ratio from 0 to 1"),
        (
            "sampling:\n - ratio: 1\n   rate: 1\n",
            "line 3: sampling: unknown key 'rate', expected service, route or ratio",
        ),
        ("sampling: [{ratio: 1.5}]\n", "line 1: sampling: ratio: expected a number from 0 to 1, not '1.5'"),
        ("sampling: [{ratio: -0.1}]\n", "line 1: sampling: ratio: expected a number from 0 to 1, not '-0.1'"),
        ("sampling: [{ratio: .nan}]\n", "line 1: non-finite float `.nan` rejected"),
        ("sampling: [{ratio: NaN}]\n", "line 1: sampling: ratio: expected a number from 0 to 1, not 'NaN'"),
        ("sampling: [{ratio: 1 %}]\n", "line 1: sampling: ratio: expected a number from 0 to 1, not '1 %'"),
        ("sampling: [{ratio: [1]}]\n", "line 1: sampling: ratio: expected one value"),
        ("sampling: [{service: , ratio: 1}]\n", "line 1: sampling: service: expected one value"),
        ("sampling:\n - {ratio: 1}\n - {service: '', ratio: 1}\n", "line 3: sampling: expected a glob such as"),
        ("sampling: [{route: '', ratio: 1}]\n", "line 1: sampling: expected a glob such as"),
        (
            "sampling: [{service: '[', ratio: 1}]\n",
            "line 1: sampling: expected a glob such as 'shop*' or '/health*': error",
        ),
        ("sampling: [{route: health, ratio: 1}]\n", "line 1: sampling: expected the glob of a path"),
        ("sampling: [{ratio: 1, ratio: 1}]\n", "line 1: ratio: given twice"),
        ("sampling: []\nsampling: []\n", "line 2: sampling: given twice"),
        ("Sampling: []\n", "line 1: unknown key 'Sampling'"),
    ] {
        refused(&[], &[], Some(file), &format!("remora.yaml, {expected}"));
    }
}

#[test]
fn pages_are_no_errors() {
    for flags in
        [&["--help"][..], &["-h"], &["--version"], &["-V"], &["check", "--help"], &["--port", "80", "run", "-h"]]
    {
        assert!(matches!(outcome(flags, &[], None), Err(Stop::Page(_))), "{flags:?}");
    }
}

proptest::proptest! {
    #[test]
    fn any_file_and_any_value_end_in_one_line_or_a_config(text: String, value: String) {
        for outcome in [outcome(&[], &[], Some(&text)), outcome(&[], &[("REMORA_LISTEN", &value), ("REMORA_LOG", &value)], None)] {
            if let Err(Stop::Usage(error)) = outcome {
                proptest::prop_assert!(!error.to_string().contains('\n'));
            }
        }
    }
}
