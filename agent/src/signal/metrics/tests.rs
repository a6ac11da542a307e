mod messaging;

use std::collections::BTreeMap;
use std::io::{ErrorKind, Write as _};
use std::process::{Command, Stdio};

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::{HistogramDataPoint, metric};
use proptest::prelude::*;

use super::own::{Dropped, Exchanges, Own, Points, Program, Queue};
use super::*;
use crate::protocol::http::{Method, Version};
use crate::signal::resource::Value;
use crate::signal::span::{SpanId, TraceId};

const SECOND: u64 = 1_000_000_000;
const START: UnixNanos = UnixNanos(1_800_000_000 * SECOND);

fn at(second: u64) -> UnixNanos {
    UnixNanos(START.0 + second * SECOND)
}

fn resource(id: u64, name: &str) -> Arc<Resource> {
    let attribute = |key: &str, value: &str| (key.into(), Value::Str(value.into()));
    let mut attributes = vec![
        attribute("service.name", name),
        attribute("host.name", "a \"host\"\n"),
        attribute("host-name", "again"),
        attribute("process.executable.name", "x"),
        attribute("container.id", "0123"),
    ];
    attributes.push(("process.pid".into(), Value::Int(i64::try_from(id).unwrap())));
    attributes.push(("host.ip".into(), Value::Strs(["10.0.0.1".into(), "::1".into()].into())));
    Arc::new(Resource { id, service_name: name.into(), attributes })
}

fn server(port: u16) -> Arc<Server> {
    Arc::new(Server { address: "db.example".into(), port: Some(port) })
}

fn observation(resource: &Arc<Resource>, kind: Kind) -> Observation<'_> {
    Observation {
        kind,
        resource,
        method: Method::Get,
        status: Some(200),
        error_type: None,
        route: None,
        version: Version::Http11,
        scheme: "http",
        grpc: None,
        server: None,
        duration_nanos: 7_000_000,
        request_body: None,
        response_body: None,
        at: at(1),
        exemplar: None,
    }
}

fn text(registry: &Registry, own: &Own, format: Format) -> String {
    let mut text = String::new();
    let mut exposition = Exposition::new(&mut text, format);
    registry.expose(&mut exposition).unwrap();
    own.expose(&mut exposition).unwrap();
    exposition.end().unwrap();
    text
}

/// The samples of a family by their labels.
fn samples(text: &str, name: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter_map(|line| line.split(" # ").next()?.rsplit_once(' '));
    lines
        .filter_map(|(series, value)| {
            let labels = series.strip_prefix(name)?;
            (labels.is_empty() || labels.starts_with('{')).then(|| (labels.to_owned(), value.parse().unwrap()))
        })
        .collect()
}

fn points(requests: &[ExportMetricsServiceRequest], name: &str) -> Vec<HistogramDataPoint> {
    let metrics =
        requests.iter().flat_map(|request| &request.resource_metrics).flat_map(|resource| &resource.scope_metrics);
    metrics
        .flat_map(|scope| &scope.metrics)
        .filter(|metric| metric.name == name)
        .flat_map(|metric| match &metric.data {
            Some(metric::Data::Histogram(histogram)) => histogram.data_points.clone(),
            data => panic!("{data:?}"),
        })
        .collect()
}

/// A registry and own metrics with everything in them.
fn full() -> (Registry, Own) {
    let mut registry = Registry::new(Limits { series_per_service: 6, ..Limits::default() }, START);
    let (shop, cart) = (resource(1, "shop"), resource(2, "cart \"\\\n"));
    let (route, server): (Arc<str>, _) = ("/users/{id}".into(), server(8080));
    for number in 0..20u16 {
        let exemplar = Some((TraceId([1; 16]), SpanId([2; 8])));
        registry.observe(&Observation {
            route: Some(&route),
            duration_nanos: u64::from(number) * 1_000_000_000,
            request_body: Some(0),
            response_body: Some(u64::from(number) << number),
            exemplar,
            ..observation(&shop, Kind::Server)
        });
        let (status, error_type) = (Some(490 + number), Some("500"));
        registry.observe(&Observation {
            server: Some(&server),
            status,
            error_type,
            exemplar,
            request_body: Some(3),
            ..observation(&cart, Kind::Client)
        });
    }
    let connection =
        |kind, resource, in_flight| Connection { kind, resource, server: Some(&server), in_flight, scheme: "http" };
    registry.set_connections(
        at(2),
        [
            connection(Kind::Server, &shop, Some((Method::Post, 2))),
            connection(Kind::Server, &shop, None),
            connection(Kind::Client, &cart, Some((Method::Get, 1))),
            connection(Kind::Client, &cart, Some((Method::Get, 1))),
        ],
    );
    let own = Own {
        version: "1.2.3",
        records: vec![("segments", 5), ("lifecycle", 6)],
        kernel_drops: vec![("segment_ring_full", 0)],
        kernel_counts: vec![("sockets_taken", 1)],
        connections: vec![("http1", 3)],
        exchanges: vec![Exchanges { protocol: "http1", kind: "server", count: 1 }],
        exchanges_lost: vec![("gap", 1)],
        links: vec![("socket", 4), ("none", 6)],
        trace_losses: vec![("late", 0)],
        spans_exported: vec![("otlp", 4)],
        spans_dropped: vec![Dropped { exporter: "otlp", reason: "queue_full", count: 1 }],
        metric_points: Some(Points { exported: 1, dropped: 0 }),
        queues: vec![Queue { name: "otlp", length: 0, capacity: 100 }],
        registry: registry.stats(),
        cpu_seconds: 0.25,
        map_bytes: vec![("segment_ring", 1 << 23)],
        programs: vec![Program { name: "sys_exit_read", runs: 7, seconds: 1e-6 }],
        ..Own::default()
    };
    (registry, own)
}

#[test]
fn one_exchange_is_exposed_as_the_conventions_name_it() {
    let mut registry = Registry::new(Limits::default(), START);
    let (shop, route): (_, Arc<str>) = (resource(1, "shop"), "/users/{id}".into());
    registry.observe(&Observation {
        status: Some(503),
        error_type: Some("503"),
        route: Some(&route),
        response_body: Some(300),
        server: Some(&server(80)),
        exemplar: Some((TraceId([0xab; 16]), SpanId([0xcd; 8]))),
        ..observation(&shop, Kind::Server)
    });
    let labels = "service_name=\"shop\",http_request_method=\"GET\",url_scheme=\"http\",http_response_status_code=\"503\",\
                  error_type=\"503\",http_route=\"/users/{id}\",network_protocol_version=\"1.1\"";
    let mut expected = "# TYPE target info\n# HELP target Attributes that all processes of a service share.\n\
                        target_info{service_name=\"shop\",host_ip=\"[\\\"10.0.0.1\\\",\\\"::1\\\"]\",\
                        host_name=\"a \\\"host\\\"\\n;again\"} 1\n\
                        # TYPE http_server_request_duration_seconds histogram\n\
                        # UNIT http_server_request_duration_seconds seconds\n\
                        # HELP http_server_request_duration_seconds Duration of HTTP server requests.\n"
        .to_owned();
    let bounds = [
        "0.005", "0.01", "0.025", "0.05", "0.075", "0.1", "0.25", "0.5", "0.75", "1.0", "2.5", "5.0", "7.5", "10.0",
        "+Inf",
    ];
    for (index, bound) in bounds.iter().enumerate() {
        let exemplar = if index == 1 {
            " # {trace_id=\"abababababababababababababababab\",span_id=\"cdcdcdcdcdcdcdcd\"} 0.007 1800000001.000"
        } else {
            ""
        };
        expected += &format!(
            "http_server_request_duration_seconds_bucket{{{labels},le=\"{bound}\"}} {}{exemplar}\n",
            u8::from(index > 0)
        );
    }
    expected += &format!("http_server_request_duration_seconds_sum{{{labels}}} 0.007\n");
    expected += &format!("http_server_request_duration_seconds_count{{{labels}}} 1\n");
    let text = text(&registry, &Own::default(), Format::OpenMetrics);
    assert!(text.starts_with(&expected), "{text}\n{expected}");
    assert!(text.contains(&format!("http_server_response_body_size_bytes_sum{{{labels}}} 300\n")));
    assert!(!text.contains("request_body_size"), "no size was known");
}

#[test]
fn processes_of_a_service_add_up() {
    let mut registry = Registry::new(Limits::default(), START);
    for id in 0..10 {
        registry.observe(&observation(&resource(id, "shop"), Kind::Server));
    }
    let text = text(&registry, &Own::default(), Format::Text);
    assert_eq!(samples(&text, "http_server_request_duration_seconds_count").into_values().collect::<Vec<_>>(), [10.0]);
    let requests = registry.to_otlp(at(3));
    assert_eq!(points(&requests, "http.server.request.duration")[0].count, 10);
}

#[test]
fn what_finds_no_room_is_counted_together() {
    let limits = Limits { series: 7, series_per_service: 4, services: 2, servers_per_service: 1, processes: 3 };
    let mut registry = Registry::new(limits, START);
    let resources: Vec<_> = (0..5).map(|id| resource(id, &format!("service-{id}"))).collect();
    let servers: Vec<_> = (0..4).map(server).collect();
    for status in 200..220 {
        for resource in &resources {
            registry.observe(&Observation { status: Some(status), ..observation(resource, Kind::Server) });
            for server in &servers {
                registry.observe(&Observation { server: Some(server), ..observation(resource, Kind::Client) });
            }
        }
    }
    let text = text(&registry, &Own::default(), Format::Text);
    let server_side = samples(&text, "http_server_request_duration_seconds_count");
    let client_side = samples(&text, "http_client_request_duration_seconds_count");
    assert_eq!(server_side.values().sum::<f64>(), 100.0, "all are there");
    assert_eq!(client_side.values().sum::<f64>(), 400.0, "all are there");
    assert_eq!(
        server_side.get("{otel_metric_overflow=\"true\"}"),
        Some(&60.0),
        "services without room: {server_side:?}"
    );
    assert_eq!(client_side.get("{otel_metric_overflow=\"true\"}"), Some(&240.0));
    // Of each service two client series (one with a server, one without) and as many server series as there is room.
    assert_eq!(server_side.get("{service_name=\"service-0\",otel_metric_overflow=\"true\"}"), Some(&18.0));
    assert_eq!(server_side.get("{service_name=\"service-1\",otel_metric_overflow=\"true\"}"), Some(&19.0));
    let stats = registry.stats();
    assert_eq!((stats.services, stats.series), (2, 7));
    assert_eq!(stats.series_overflow, 300 + 18 + 19);
    assert_eq!(stats.server_overflow, 2 * 20 * 3, "those of a service without room do not count");
    let otlp = registry.to_otlp(at(3));
    let total: u64 = points(&otlp, "http.client.request.duration").iter().map(|point| point.count).sum();
    assert_eq!(total, 400);
}

#[test]
fn services_that_are_gone_and_idle_are_forgotten() {
    let mut registry = Registry::new(Limits { series: 3, ..Limits::default() }, START);
    let (gone, alive, busy) = (resource(1, "gone"), resource(2, "alive"), resource(3, "busy"));
    for resource in [&gone, &alive, &busy] {
        registry.observe(&observation(resource, Kind::Server));
    }
    drop((gone, busy));
    let busy = resource(4, "busy");
    registry.sweep(at(300));
    assert_eq!(registry.stats().services, 3);
    registry.observe(&Observation { at: at(200), ..observation(&busy, Kind::Server) });
    registry.sweep(at(302));
    assert_eq!(registry.stats(), RegistryStats { services: 2, series: 2, ..RegistryStats::default() });
    // What was found by its place is still found.
    registry.observe(&Observation { at: at(303), ..observation(&alive, Kind::Server) });
    registry.observe(&Observation { at: at(303), ..observation(&busy, Kind::Server) });
    registry.observe(&Observation { at: at(303), ..observation(&resource(5, "gone"), Kind::Server) });
    let text = text(&registry, &Own::default(), Format::Text);
    let counts: Vec<_> = ["alive", "busy", "gone"]
        .iter()
        .map(|name| {
            let all = samples(&text, "http_server_request_duration_seconds_count");
            all.iter().find(|(labels, _)| labels.contains(name)).map(|(_, count)| *count)
        })
        .collect();
    assert_eq!(counts, [Some(2.0), Some(3.0), Some(1.0)]);
    drop(busy);
    registry.sweep(at(10_000));
    assert_eq!(registry.stats().services, 1, "a process that lives keeps its service, however idle");
}

#[test]
fn connections_are_set_anew_each_time() {
    let (mut registry, own) = full();
    let text_of = |registry: &Registry| text(registry, &own, Format::Text);
    let text = text_of(&registry);
    for (name, labels, value) in [
        ("http_server_active_requests", r#"{service_name="shop",http_request_method="POST",url_scheme="http"}"#, 2.0),
        (
            "http_client_active_requests",
            r#"{service_name="cart \"\\\n",http_request_method="GET",url_scheme="http"}"#,
            2.0,
        ),
        ("remora_http_server_open_connections", r#"{service_name="shop",http_connection_state="active"}"#, 1.0),
        ("remora_http_server_open_connections", r#"{service_name="shop",http_connection_state="idle"}"#, 1.0),
        (
            "http_client_open_connections",
            r#"{service_name="cart \"\\\n",http_connection_state="active",server_address="db.example",server_port="8080"}"#,
            2.0,
        ),
    ] {
        assert_eq!(samples(&text, name).get(labels), Some(&value), "{name}{labels}\n{text}");
    }
    registry.set_connections(at(3), []);
    let all = samples(&text_of(&registry), "http_client_open_connections");
    assert_eq!(all.into_values().collect::<Vec<_>>(), [0.0]);
}

#[test]
fn services_tell_what_was_recent() {
    let (registry, _) = full();
    let services = registry.services(at(5), 10);
    assert_eq!(services.len(), 2);
    assert_eq!(
        (&*services[0].service, services[0].kind, services[0].requests, services[0].errors),
        ("shop", Kind::Server, 20, 0)
    );
    assert_eq!((services[1].kind, services[1].requests, services[1].errors), (Kind::Client, 20, 20));
    assert_eq!(services[1].recent.error_rate, Some(1.0));
    assert!((services[0].recent.rate - 2.0).abs() < 1e-9);
    assert!(services[0].recent.p50.is_some_and(|p50| (9.0..11.0).contains(&p50)), "{services:?}");
}

#[test]
fn otlp_has_resources_scopes_and_exemplars() {
    let (registry, _) = full();
    let requests = registry.to_otlp(at(7));
    let [request] = &*requests else { panic!("{}", requests.len()) };
    let names: Vec<Vec<String>> = (request.resource_metrics.iter())
        .map(|resource| {
            resource.resource.clone().unwrap().attributes.into_iter().map(|attribute| attribute.key).collect()
        })
        .collect();
    let expected: Vec<_> = ["service.name", "host.name", "host-name", "host.ip"].map(str::to_owned).into();
    assert_eq!(names, [expected.clone(), expected], "what tells processes apart is not there");
    let point = &points(&requests, "http.server.request.duration")[0];
    assert_eq!((point.count, point.sum, point.time_unix_nano), (20, Some(190.0), at(7).0));
    assert!(point.start_time_unix_nano <= at(1).0);
    assert_eq!(point.bucket_counts.len(), point.explicit_bounds.len() + 1);
    assert_eq!(point.bucket_counts.iter().sum::<u64>(), 20);
    assert_eq!(point.exemplars.iter().map(|exemplar| exemplar.trace_id.len() + exemplar.span_id.len()).max(), Some(24));
    assert!(Registry::new(Limits::default(), START).to_otlp(at(1)).is_empty());
}

#[test]
fn otlp_is_split_where_it_gets_long() {
    let mut registry = Registry::new(Limits { series: 10_000, ..Limits::default() }, START);
    let mut made = 0;
    for service in 0..7 {
        let resource = resource(service, &service.to_string());
        for status in 100..700 {
            let (request_body, response_body) = (Some(1), Some(1));
            let observation = observation(&resource, Kind::Server);
            registry.observe(&Observation { status: Some(status), request_body, response_body, ..observation });
            made += 3;
        }
    }
    let requests = registry.to_otlp(at(2));
    let count = |request: &ExportMetricsServiceRequest| -> usize {
        let requests = std::slice::from_ref(request);
        ["http.server.request.duration", "http.server.request.body.size", "http.server.response.body.size"]
            .map(|name| points(requests, name).len())
            .iter()
            .sum()
    };
    assert_eq!(requests.iter().map(count).sum::<usize>(), made);
    assert_eq!(requests.len(), made.div_ceil(1000));
    assert!(requests.iter().all(|request| count(request) <= 1000 && count(request) > 0));
}

/// Runs a checker on `text`; prints why when it is not there.
fn check(program: &str, arguments: &[&str], text: &str) -> Option<(bool, String)> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = match command.spawn() {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            println!("skipped: no {program} here");
            return None;
        }
        child => child.unwrap(),
    };
    // A checker may have seen enough before all is written.
    let _ = child.stdin.take().unwrap().write_all(text.as_bytes());
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    Some((output.status.success(), said.into_owned()))
}

fn promtool(text: &str) -> Option<(bool, String)> {
    check("promtool", &["check", "metrics"], text)
}

fn strict_parser(text: &str) -> Option<(bool, String)> {
    const SCRIPT: &str = "
import sys
try:
    from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse
except ImportError:
    print('skipped: no Python module prometheus_client here')
    sys.exit()
families = list(parse(sys.stdin.read()))
print(len(families), 'families,', sum(len(family.samples) for family in families), 'samples,',
      sum(sample.exemplar is not None for family in families for sample in family.samples), 'exemplars')
";
    // Where the set-up for the tests puts it, else whatever is there.
    let python = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/fixtures/venv/bin/python");
    let python = if std::path::Path::new(python).exists() { python } else { "python3" };
    check(python, &["-c", SCRIPT], text)
}

#[test]
fn promtool_has_no_complaint() {
    let (registry, own) = full();
    for text in [
        text(&registry, &own, Format::Text),
        text(&Registry::new(Limits::default(), START), &Own::default(), Format::Text),
    ] {
        let Some((success, said)) = promtool(&text) else { return };
        assert!(success && said.is_empty(), "{said}\n{text}");
    }
}

#[test]
fn a_strict_parser_reads_open_metrics() {
    let (registry, own) = full();
    for text in [
        text(&registry, &own, Format::OpenMetrics),
        text(&Registry::new(Limits::default(), START), &Own::default(), Format::OpenMetrics),
    ] {
        let Some((success, said)) = strict_parser(&text) else { return };
        println!("{said}");
        assert!(success, "{said}\n{text}");
    }
}

#[derive(Clone, Debug)]
struct Made {
    service: u64,
    client: bool,
    status: u16,
    route: usize,
    port: u16,
    nanos: u64,
    body: Option<u64>,
}

fn made() -> impl Strategy<Value = Made> {
    let nanos = prop_oneof![0..20_000_000_000u64, 0..u64::MAX / 1000];
    (0..6u64, any::<bool>(), 200..204u16, 0..3usize, 80..84u16, nanos, any::<Option<u64>>()).prop_map(
        |(service, client, status, route, port, nanos, body)| Made {
            service,
            client,
            status,
            route,
            port,
            nanos,
            body,
        },
    )
}

proptest! {
    #[test]
    fn nothing_is_lost_and_counts_are_sums_of_buckets(all in prop::collection::vec(made(), 0..300)) {
        let limits = Limits { series: 30, series_per_service: 12, services: 4, servers_per_service: 2, processes: 5 };
        let mut registry = Registry::new(limits, START);
        let resources: Vec<_> = (0..6).map(|id| resource(id, &format!("s{}", id / 2 * 2 + id % 2))).collect();
        let routes: [Option<Arc<str>>; 3] = [None, Some("/a".into()), Some("/b".into())];
        for made in &all {
            let kind = if made.client { Kind::Client } else { Kind::Server };
            // Another allocation each time: equal means equal text.
            let (server, route) = (server(made.port), routes[made.route].as_deref().map(Arc::<str>::from));
            registry.observe(&Observation {
                status: Some(made.status),
                route: route.as_ref(),
                server: Some(&server),
                duration_nanos: made.nanos,
                request_body: made.body,
                ..observation(&resources[usize::try_from(made.service).unwrap()], kind)
            });
        }
        let (text, otlp) = (text(&registry, &Own::default(), Format::Text), registry.to_otlp(at(9)));
        for (client, side) in [(false, "server"), (true, "client")] {
            let of_side = || all.iter().filter(|made| made.client == client);
            let bodies = of_side().filter(|made| made.body.is_some()).count();
            for (family, name, expected) in [
                ("duration_seconds", "duration", of_side().count()),
                ("body_size_bytes", "body.size", bodies),
            ] {
                let family = format!("http_{side}_request_{family}");
                let counts = samples(&text, &format!("{family}_count"));
                prop_assert_eq!(counts.values().sum::<f64>(), expected as f64);
                let buckets = samples(&text, &format!("{family}_bucket"));
                let mut last: BTreeMap<&str, f64> = BTreeMap::new();
                for (labels, count) in &buckets {
                    if let Some(labels) = labels.strip_suffix(",le=\"+Inf\"}") {
                        last.insert(labels, *count);
                    }
                }
                for (labels, count) in &counts {
                    prop_assert_eq!(last.get(labels.trim_end_matches('}')), Some(count));
                }
                let points = points(&otlp, &format!("http.{side}.request.{name}"));
                prop_assert_eq!(points.iter().map(|point| point.count).sum::<u64>(), expected as u64);
                prop_assert_eq!(points.len(), counts.len());
                for point in points {
                    prop_assert_eq!(point.bucket_counts.iter().sum::<u64>(), point.count);
                }
            }
        }
        let stats = registry.stats();
        prop_assert!(stats.series <= 30 && stats.services <= 4);
        let requests: u64 = registry.services(at(9), 60).iter().map(|service| service.requests).sum();
        let known = all.iter().filter(|made| registry.by_identity.contains_key(&Identity::of(&resources[made.service as usize])));
        prop_assert_eq!(requests, known.count() as u64);
    }
}
