//! Metrics of messaging, in both exports and at their limits.

use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::metrics::v1::{Metric, NumberDataPoint, number_data_point};

use super::*;

const MILLI: u64 = 1_000_000;
const EXEMPLAR: Option<(TraceId, SpanId)> = Some((TraceId([0xab; 16]), SpanId([0xcd; 8])));

fn call<'a>(resource: &'a Arc<Resource>, kind: Kind, operation: &'static str) -> MessagingCall<'a> {
    MessagingCall {
        resource,
        kind,
        system: "kafka",
        operation,
        operation_type: None,
        destination: None,
        group: None,
        error_type: None,
        server: None,
        duration_nanos: 7 * MILLI,
        at: at(1),
        exemplar: None,
    }
}

fn messages<'a>(resource: &'a Arc<Resource>, topic: &'a Arc<str>, count: u64) -> Messages<'a> {
    Messages {
        resource,
        system: "kafka",
        operation: "send",
        destination: Some(topic),
        group: None,
        error_type: None,
        server: None,
        count,
        sent: true,
        at: at(1),
    }
}

fn queued<'a>(resource: &'a Arc<Resource>, topic: &'a Arc<str>, nanos: u64, count: u64) -> Queued<'a> {
    Queued {
        resource,
        system: "kafka",
        destination: Some(topic),
        group: None,
        nanos,
        count,
        at: at(1),
        exemplar: EXEMPLAR,
    }
}

fn lag<'a>(resource: &'a Arc<Resource>, topic: &'a Arc<str>, partition: i32, lag: u64, at: UnixNanos) -> Lag<'a> {
    Lag { resource, system: "kafka", destination: Some(topic), partition, group: Some(topic), lag, at }
}

/// One of each: a producer, a consumer and a broker.
fn each() -> Registry {
    let mut registry = Registry::new(Limits::default(), START);
    let [producer, consumer, broker] = [(1, "shop"), (2, "mail"), (3, "kafka")].map(|(id, name)| resource(id, name));
    let (topic, group, server): (Arc<str>, Arc<str>, _) = ("orders".into(), "mailers".into(), server(9092));
    let (destination, group, server) = (Some(&topic), Some(&group), Some(&server));
    registry.messaging_call(&MessagingCall {
        operation_type: Some("send"),
        destination,
        server,
        exemplar: EXEMPLAR,
        ..call(&producer, Kind::Client, "send")
    });
    registry.messages(&Messages { server, ..messages(&producer, &topic, 40) });
    let error_type = Some("MESSAGE_TOO_LARGE");
    registry.messages(&Messages { server, error_type, ..messages(&producer, &topic, 2) });
    // A name that a broker's peer claims says nothing about the broker.
    registry.messaging_call(&MessagingCall { server, ..call(&broker, Kind::Server, "Produce") });
    registry.messages(&Messages {
        server,
        group,
        operation: "receive",
        sent: false,
        ..messages(&consumer, &topic, 40)
    });
    registry.time_in_queue(&Queued { group, ..queued(&consumer, &topic, 45_000 * MILLI, 40) });
    registry.consumer_lag(&Lag { group, ..lag(&consumer, &topic, 3, 5, at(1)) });
    registry.consumer_lag(&Lag { group, ..lag(&consumer, &topic, 3, 2, at(2)) });
    registry
}

/// A histogram's lines with one duration of `count` values in it.
fn lines(family: &str, labels: &str, bounds: &[&str], above: usize, count: u64, sum: &str, exemplar: &str) -> String {
    let mut lines = String::new();
    for (index, bound) in bounds.iter().chain(&["+Inf"]).enumerate() {
        let (below, exemplar) = (if index < above { 0 } else { count }, if index == above { exemplar } else { "" });
        lines += &format!("{family}_bucket{{{labels},le=\"{bound}\"}} {below}{exemplar}\n");
    }
    lines + &format!("{family}_sum{{{labels}}} {sum}\n{family}_count{{{labels}}} {count}\n")
}

#[test]
fn one_of_each_is_exposed_as_the_conventions_name_it() {
    const BOUNDS: [&str; 20] = [
        "0.005", "0.01", "0.025", "0.05", "0.075", "0.1", "0.25", "0.5", "0.75", "1.0", "2.5", "5.0", "7.5", "10.0",
        "30.0", "60.0", "120.0", "300.0", "900.0", "3600.0",
    ];
    let span = "{trace_id=\"abababababababababababababababab\",span_id=\"cdcdcdcdcdcdcdcd\"}";
    let head = |name: &str, kind: &str, unit: &str, help: &str| {
        let unit = if unit.is_empty() { String::new() } else { format!("# UNIT {name} {unit}\n") };
        format!("# TYPE {name} {kind}\n{unit}# HELP {name} {help}\n")
    };
    let mut expected = String::new();
    let name = "messaging_client_operation_duration_seconds";
    expected += &head(
        name,
        "histogram",
        "seconds",
        "Duration of messaging operation initiated by a producer or consumer client.",
    );
    let send = "service_name=\"shop\",messaging_system=\"kafka\",messaging_operation_name=\"send\",";
    let server = "server_address=\"db.example\",server_port=\"9092\"";
    let labels = format!("{send}messaging_operation_type=\"send\",messaging_destination_name=\"orders\",{server}");
    expected += &lines(name, &labels, &BOUNDS[..14], 1, 1, "0.007", &format!(" # {span} 0.007 1800000001.000"));
    let name = "remora_messaging_server_operation_duration_seconds";
    expected += &head(name, "histogram", "seconds", "Duration of messaging operation served by a broker.");
    let labels = "service_name=\"kafka\",messaging_system=\"kafka\",messaging_operation_name=\"Produce\"";
    expected += &lines(name, labels, &BOUNDS[..14], 1, 1, "0.007", "");
    let name = "remora_messaging_time_in_queue_seconds";
    expected +=
        &head(name, "histogram", "seconds", "Time from when a message was sent to when a consumer received it.");
    let group = "messaging_consumer_group_name=\"mailers\"";
    let labels =
        format!("service_name=\"mail\",messaging_system=\"kafka\",messaging_destination_name=\"orders\",{group}");
    expected += &lines(name, &labels, &BOUNDS, 15, 40, "1800", &format!(" # {span} 45 1800000001.000"));
    let name = "messaging_client_sent_messages";
    expected += &head(name, "counter", "", "Number of messages producer attempted to send to the broker.");
    for (error_type, count) in [("", 40), ("error_type=\"MESSAGE_TOO_LARGE\",", 2)] {
        expected +=
            &format!("{name}_total{{{send}messaging_destination_name=\"orders\",{error_type}{server}}} {count}\n");
    }
    let name = "messaging_client_consumed_messages";
    expected += &head(name, "counter", "", "Number of messages that were delivered to the application.");
    expected += &format!(
        "{name}_total{{service_name=\"mail\",messaging_system=\"kafka\",messaging_operation_name=\"receive\",\
         messaging_destination_name=\"orders\",{group},{server}}} 40\n"
    );
    let name = "remora_messaging_consumer_lag";
    expected +=
        &head(name, "gauge", "", "Number of messages of a partition that a consumer group has not received yet.");
    expected += &format!(
        "{name}{{service_name=\"mail\",messaging_system=\"kafka\",messaging_destination_name=\"orders\",\
         messaging_destination_partition_id=\"3\",{group}}} 2\n"
    );
    let text = text(&each(), &Own::default(), Format::OpenMetrics);
    let begin = text.find("# TYPE messaging").unwrap();
    assert_eq!(&text[begin..text.find("# TYPE remora_build").unwrap()], expected);
}

fn metric<'a>(requests: &'a [ExportMetricsServiceRequest], name: &str) -> Vec<&'a Metric> {
    let resources = requests.iter().flat_map(|request| &request.resource_metrics);
    let metrics = resources.flat_map(|resource| &resource.scope_metrics).flat_map(|scope| &scope.metrics);
    metrics.filter(|metric| metric.name == name).collect()
}

/// The numbers of a metric; whether they only grow.
fn numbers(requests: &[ExportMetricsServiceRequest], name: &str) -> (Vec<NumberDataPoint>, bool) {
    let mut grows = false;
    let of = |metric: &&Metric| match &metric.data {
        Some(metric::Data::Sum(sum)) => {
            grows = sum.is_monotonic;
            sum.data_points.clone()
        }
        data => panic!("{data:?}"),
    };
    let points = metric(requests, name).iter().flat_map(of).collect();
    (points, grows)
}

fn value(point: &NumberDataPoint) -> u64 {
    match point.value {
        Some(number_data_point::Value::AsInt(value)) => u64::try_from(value).unwrap(),
        value => panic!("{value:?}"),
    }
}

#[test]
fn otlp_has_the_same() {
    let requests = each().to_otlp(at(9));
    for (name, unit, count, sum, bounds) in [
        ("messaging.client.operation.duration", "s", 1, 0.007, 14),
        ("remora.messaging.server.operation.duration", "s", 1, 0.007, 14),
        ("remora.messaging.time_in_queue", "s", 40, 1800.0, 20),
    ] {
        assert_eq!(metric(&requests, name)[0].unit, unit);
        let [point] = &*points(&requests, name) else { panic!("{name}") };
        assert_eq!((point.count, point.sum, point.explicit_bounds.len()), (count, Some(sum), bounds), "{name}");
        assert_eq!(point.bucket_counts.len(), bounds + 1);
        assert_eq!(point.exemplars.len(), usize::from(!name.contains("server")), "{name}");
    }
    for (name, values, grows) in [
        ("messaging.client.sent.messages", vec![40, 2], true),
        ("messaging.client.consumed.messages", vec![40], true),
        ("remora.messaging.consumer.lag", vec![2], false),
    ] {
        assert_eq!(metric(&requests, name)[0].unit, "{message}");
        let (points, is_monotonic) = numbers(&requests, name);
        assert_eq!((points.iter().map(value).collect::<Vec<_>>(), is_monotonic), (values, grows), "{name}");
        assert!(points.iter().all(|point| point.start_time_unix_nano <= at(1).0 && point.time_unix_nano == at(9).0));
    }
    let (lags, _) = numbers(&requests, "remora.messaging.consumer.lag");
    let attributes: Vec<_> = (lags[0].attributes.iter())
        .map(|attribute| (&*attribute.key, attribute.value.clone().unwrap().value.unwrap()))
        .collect();
    let text = |text: &str| Any::StringValue(text.to_owned());
    assert_eq!(
        attributes,
        [
            ("messaging.system", text("kafka")),
            ("messaging.destination.name", text("orders")),
            ("messaging.destination.partition.id", text("3")),
            ("messaging.consumer.group.name", text("mailers")),
        ]
    );
}

#[test]
fn checkers_have_no_complaint() {
    let (registry, own) = (each(), full().1);
    if let Some((success, said)) = promtool(&text(&registry, &own, Format::Text)) {
        assert!(success && said.is_empty(), "{said}");
    }
    if let Some((success, said)) = strict_parser(&text(&registry, &own, Format::OpenMetrics)) {
        assert!(success, "{said}");
    }
}

#[test]
fn what_finds_no_room_is_counted_together_by_instrument() {
    let limits = Limits { series: 100, series_per_service: 8, services: 1, servers_per_service: 2, processes: 3 };
    let mut registry = Registry::new(limits, START);
    let (first, second) = (resource(1, "first"), resource(2, "second"));
    let servers: Vec<_> = (0..4).map(server).collect();
    for number in 0..20u64 {
        let (topic, server): (Arc<str>, _) = (format!("topic-{number}").into(), &servers[number as usize % 4]);
        for resource in [&first, &second] {
            for kind in [Kind::Client, Kind::Server] {
                let (destination, server) = (Some(&topic), Some(server));
                registry.messaging_call(&MessagingCall { destination, server, ..call(resource, kind, "send") });
            }
            for sent in [true, false] {
                registry.messages(&Messages { sent, ..messages(resource, &topic, 10) });
            }
            registry.time_in_queue(&queued(resource, &topic, u64::MAX, u64::MAX / 64));
            registry.consumer_lag(&lag(resource, &topic, 0, 1, at(1)));
        }
    }
    let text = text(&registry, &Own::default(), Format::Text);
    let own = "{service_name=\"first\",otel_metric_overflow=\"true\"}";
    let others = "{otel_metric_overflow=\"true\"}";
    // Six series of the first topic, lag among them, and the two calls of the second one.
    for (name, all, of_service) in [
        ("messaging_client_operation_duration_seconds_count", 40.0, 18.0),
        ("remora_messaging_server_operation_duration_seconds_count", 40.0, 18.0),
        ("messaging_client_sent_messages_total", 400.0, 190.0),
        ("messaging_client_consumed_messages_total", 400.0, 190.0),
    ] {
        let samples = samples(&text, name);
        assert_eq!(samples.values().sum::<f64>(), all, "{name}: all are there");
        assert_eq!((samples[own], samples[others]), (of_service, all / 2.0), "{name}");
    }
    let waits = samples(&text, "remora_messaging_time_in_queue_seconds_count");
    assert!((waits[own] / waits[others] - 19.0 / 20.0).abs() < 1e-9, "{waits:?}");
    let sum = samples(&text, "remora_messaging_time_in_queue_seconds_sum")[own];
    assert!((sum / (waits[own] * 1.844_674_4e10) - 1.0).abs() < 1e-6, "no overflow: {sum}");
    assert_eq!(samples(&text, "remora_messaging_consumer_lag").len(), 1);
    let stats = registry.stats();
    assert_eq!((stats.services, stats.series, stats.lag_overflow), (1, 8, 39));
    assert_eq!(stats.series_overflow, 2 * 20 * 5 - 7);
    // Two of four servers have room, of those of the first service's calls as a client.
    assert_eq!(stats.server_overflow, 10);
}

#[test]
fn a_partition_that_is_not_heard_of_is_forgotten() {
    let mut registry = Registry::new(Limits { series: 8, series_per_service: 8, ..Limits::default() }, START);
    let (shop, topic): (_, Arc<str>) = (resource(1, "shop"), "orders".into());
    for partition in 0..6 {
        registry.consumer_lag(&lag(&shop, &topic, partition, 7, at(u64::from(partition == 2) * 100)));
    }
    registry.messages(&messages(&shop, &topic, 1));
    registry.observe(&observation(&shop, Kind::Server));
    assert_eq!((registry.stats().series, registry.stats().lag_overflow), (6, 2), "lags have half of the room");
    let lags = |registry: &Registry| {
        let text = text(registry, &Own::default(), Format::Text);
        let lags = samples(&text, "remora_messaging_consumer_lag");
        lags.into_iter()
            .map(|(labels, lag)| (labels.split("_id=\"").nth(1).unwrap()[..1].to_owned(), lag))
            .collect::<Vec<_>>()
    };
    let expected = |all: &[(&str, f64)]| -> Vec<_> {
        all.iter().map(|(partition, lag)| ((*partition).to_owned(), *lag)).collect()
    };
    registry.sweep(at(299));
    assert_eq!(lags(&registry), expected(&[("0", 7.0), ("1", 7.0), ("2", 7.0), ("3", 7.0)]));
    registry.sweep(at(300));
    assert_eq!(lags(&registry), expected(&[("2", 7.0)]));
    // What was found by its place is still found, and there is room again.
    registry.messages(&messages(&shop, &topic, 1));
    registry.observe(&observation(&shop, Kind::Server));
    for partition in [2, 4] {
        registry.consumer_lag(&lag(&shop, &topic, partition, 9, at(301)));
    }
    assert_eq!(lags(&registry), expected(&[("2", 9.0), ("4", 9.0)]));
    assert_eq!((registry.stats().series, registry.stats().series_overflow), (4, 0));
    let text = text(&registry, &Own::default(), Format::Text);
    for name in ["messaging_client_sent_messages_total", "http_server_request_duration_seconds_count"] {
        assert_eq!(samples(&text, name).into_values().collect::<Vec<_>>(), [2.0], "{name}");
    }
    registry.sweep(at(10_000));
    assert_eq!((lags(&registry).len(), registry.stats().series), (0, 2));
    for partition in 0..6 {
        registry.consumer_lag(&lag(&shop, &topic, partition, 1, at(10_001)));
    }
    assert_eq!((lags(&registry).len(), registry.stats().lag_overflow), (4, 4));
}

#[derive(Clone, Copy, Debug)]
enum Told {
    Call { server: bool },
    Messages { sent: bool },
    Queued,
    Lag { partition: i32 },
}

fn told() -> impl Strategy<Value = (Told, u64, usize, u64)> {
    let what = prop_oneof![
        any::<bool>().prop_map(|server| Told::Call { server }),
        any::<bool>().prop_map(|sent| Told::Messages { sent }),
        Just(Told::Queued),
        (-1..4i32).prop_map(|partition| Told::Lag { partition }),
    ];
    (what, 0..5u64, 0..6usize, prop_oneof![Just(0), 0..1_000_000u64])
}

proptest! {
    #[test]
    fn no_message_and_no_call_is_lost(all in prop::collection::vec(told(), 0..200)) {
        let limits = Limits { series: 30, series_per_service: 14, services: 3, servers_per_service: 2, processes: 2 };
        let mut registry = Registry::new(limits, START);
        let resources: Vec<_> = (0..5).map(|id| resource(id, &format!("s{id}"))).collect();
        let mut expected: BTreeMap<&str, u64> = BTreeMap::new();
        for (number, (told, service, name, count)) in all.iter().enumerate() {
            let resource = &resources[usize::try_from(*service).unwrap()];
            // Another allocation each time: equal means equal text.
            let (topic, server): (Arc<str>, _) = (format!("t{name}").into(), server(u16::try_from(*name).unwrap()));
            let (counted, name) = match *told {
                Told::Call { server: is_broker } => {
                    let (kind, name) = if is_broker {
                        (Kind::Server, "remora.messaging.server.operation.duration")
                    } else {
                        (Kind::Client, "messaging.client.operation.duration")
                    };
                    let (destination, server) = (Some(&topic), Some(&server));
                    registry.messaging_call(&MessagingCall { destination, server, ..call(resource, kind, "x") });
                    (1, name)
                }
                Told::Messages { sent } => {
                    registry.messages(&Messages { sent, ..messages(resource, &topic, *count) });
                    (*count, if sent { "messaging.client.sent.messages" } else { "messaging.client.consumed.messages" })
                }
                Told::Queued => {
                    registry.time_in_queue(&queued(resource, &topic, count * MILLI, *count));
                    (*count, "remora.messaging.time_in_queue")
                }
                Told::Lag { partition } => {
                    registry.consumer_lag(&lag(resource, &topic, partition, *count, at(number as u64)));
                    registry.sweep(at(number as u64));
                    (0, "remora.messaging.consumer.lag")
                }
            };
            *expected.entry(name).or_default() += counted;
        }
        let (text, otlp) = (text(&registry, &Own::default(), Format::Text), registry.to_otlp(at(900)));
        for (name, count) in expected {
            if name.ends_with("lag") {
                let lags = samples(&text, "remora_messaging_consumer_lag");
                prop_assert!(lags.len() <= 15);
                prop_assert_eq!(numbers(&otlp, name).0.len(), lags.len());
            } else if name.ends_with("messages") {
                let (points, grows) = numbers(&otlp, name);
                prop_assert!(grows);
                prop_assert_eq!(points.iter().map(value).sum::<u64>(), count);
                let exposed = samples(&text, &format!("{}_total", name.replace('.', "_")));
                prop_assert_eq!(exposed.values().sum::<f64>(), count as f64);
            } else {
                let points = points(&otlp, name);
                prop_assert_eq!(points.iter().map(|point| point.count).sum::<u64>(), count);
                prop_assert!(points.iter().all(|point| point.count > 0 || point.exemplars.is_empty()));
                let exposed = samples(&text, &format!("{}_seconds_count", name.replace('.', "_")));
                prop_assert_eq!(exposed.values().sum::<f64>(), count as f64);
            }
        }
        prop_assert!(registry.stats().series <= 30 && registry.stats().services <= 3);
        let series: u64 = registry.services.iter().map(|service| service.len() as u64).sum();
        prop_assert_eq!(registry.stats().series, series);
    }
}
