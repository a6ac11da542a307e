use std::collections::BTreeSet;
use std::time::Instant;

use proptest::prelude::*;

use super::*;

fn resource(name: &str) -> Resource {
    Resource { service_name: name.into(), ..Resource::default() }
}

fn route(routes: &mut Routes, path: &str) -> Option<String> {
    routes.route(&resource("shop"), Kind::Server, path, Some(200)).map(|route| route.to_string())
}

/// Numbers without a pattern, the same in each run (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn word(&mut self) -> String {
        (0..7).map(|_| char::from(b'a' + (self.next() % 26) as u8)).collect()
    }
}

#[test]
fn paths_become_routes() {
    let mut routes = Routes::default();
    for (path, expected) in [
        ("/", Some("/")),
        ("/users", Some("/users")),
        ("/users/", Some("/users/")),
        ("/users/42", Some("/users/{id}")),
        ("/users/42/orders/550e8400-e29b-41d4-a716-446655440000", Some("/users/{id}/orders/{id}")),
        ("/api/v1/users/7?full=1", Some("/api/v1/users/{id}")),
        ("/assets/app.3f2a9c.js", Some("/assets/app.{id}.js")),
        ("/search/caf%C3%A9", Some("/search/{param}")),
        ("/logs/2026-01-31", Some("/logs/{date}")),
        ("/a/b/c/d/e/f/g/h", Some("/a/b/c/d/e/f/g/h")),
        ("/a/b/c/d/e/f/g/h/i", Some("/a/b/c/d/e/f/g/h/*")),
        ("/a/b/c/d/e/f/g/h/i/j/k", Some("/a/b/c/d/e/f/g/h/*")),
        ("//", Some("//")),
        ("*", None),
        ("", None),
        ("users", None),
    ] {
        assert_eq!(route(&mut routes, path).as_deref(), expected, "{path}");
        assert_eq!(route(&mut routes, path).as_deref(), expected, "{path}, remembered");
    }
    assert_eq!(routes.overflows(), 0);
}

#[test]
fn a_position_with_many_words_becomes_a_parameter() {
    let mut routes = Routes::default();
    let mut random = Random(1);
    let words = Limits::default().words;
    for _ in 0..words {
        let name = random.word();
        assert_eq!(route(&mut routes, &format!("/people/{name}/posts")), Some(format!("/people/{name}/posts")));
    }
    let known = {
        let mut random = Random(1);
        format!("/people/{}/posts", random.word())
    };
    for _ in 0..100 {
        let name = random.word();
        assert_eq!(route(&mut routes, &format!("/people/{name}/posts")).as_deref(), Some("/people/{param}/posts"));
    }
    assert_eq!(route(&mut routes, &known).as_deref(), Some("/people/{param}/posts"), "a remembered path follows");
    assert_eq!(route(&mut routes, "/people/42/posts").as_deref(), Some("/people/{id}/posts"));
    assert_eq!(route(&mut routes, "/health").as_deref(), Some("/health"), "other positions are not touched");
}

#[test]
fn unknown_paths_teach_nothing() {
    let (mut routes, shop) = (Routes::default(), resource("shop"));
    assert_eq!(route(&mut routes, "/users/1").as_deref(), Some("/users/{id}"));
    let mut random = Random(2);
    for _ in 0..10_000 {
        let path = format!("/{}/{}", random.word(), random.word());
        assert_eq!(routes.route(&shop, Kind::Server, &path, Some(404)), None);
    }
    assert_eq!(routes.route(&shop, Kind::Server, "/users/2", Some(404)).as_deref(), Some("/users/{id}"));
    assert_eq!(route(&mut routes, "/login").as_deref(), Some("/login"));
    assert_eq!(routes.overflows(), 0);
    assert_eq!(routes.trees[0].size(), (4, 2));
}

#[test]
fn services_and_sides_are_apart_and_processes_of_one_service_together() {
    let mut routes = Routes::default();
    let (shop, other) = (resource("shop"), Resource { id: 7, ..resource("other") });
    let mut random = Random(3);
    for id in 0..100 {
        let process = Resource { id, ..resource("shop") };
        routes.route(&process, Kind::Server, &format!("/{}", random.word()), Some(200));
    }
    assert_eq!(routes.route(&shop, Kind::Server, "/login", None).as_deref(), Some("/{param}"));
    assert_eq!(routes.route(&shop, Kind::Client, "/login", None).as_deref(), Some("/login"));
    assert_eq!(routes.route(&other, Kind::Server, "/login", None).as_deref(), Some("/login"));
}

#[test]
fn the_least_recently_used_service_goes_first() {
    let mut routes = Routes::new(Limits { services: 2, ..Limits::default() });
    let shop = resource("shop");
    for word in 0..60 {
        routes.route(&shop, Kind::Server, &format!("/w{}", ["a", "b"][word % 2].repeat(word / 2 + 1)), None);
    }
    assert_eq!(routes.route(&shop, Kind::Server, "/login", None).as_deref(), Some("/{param}"));
    for name in 0..1000 {
        routes.route(&resource(&name.to_string()), Kind::Server, "/x", None);
        // From memory, which must count as use.
        assert_eq!(routes.route(&shop, Kind::Server, "/login", None).as_deref(), Some("/{param}"));
    }
    assert_eq!(routes.trees.len(), 2);
    assert_eq!(routes.by_service.len(), 2);
}

#[test]
fn a_million_random_paths_stay_within_the_limits() {
    let limits = Limits::default();
    // A million in all; fewer where the compiler does not optimise, since that takes half a minute.
    let each = if cfg!(debug_assertions) { 25_000 } else { 250_000 };
    let shapes: [fn(&mut Random) -> String; 4] = [
        |random| format!("/{}", random.word()),
        |random| (0..1 + random.next() % 10).map(|_| "/".to_owned() + &random.word()).collect(),
        // As many prefixes as possible before any position fills up.
        |random| (0..8).map(|_| format!("/w{}", (b'a' + (random.next() % 20) as u8) as char)).collect(),
        // All placeholders at all positions.
        |random| {
            let mut piece = || ["/1", "/2026-01-31", "/%20", "/x"][(random.next() % 4) as usize];
            (0..9).map(|_| piece()).collect()
        },
    ];
    for (number, shape) in shapes.iter().enumerate() {
        let (mut routes, mut random) = (Routes::new(limits), Random(4));
        let mut seen = BTreeSet::new();
        let (shop, start, mut none) = (resource("shop"), Instant::now(), 0);
        for _ in 0..each {
            match routes.route(&shop, Kind::Server, &shape(&mut random), Some(200)) {
                Some(route) => drop(seen.insert(route)),
                None => none += 1,
            }
        }
        println!(
            "shape {number}: {} routes, {none} without, size {:?}, {:?}",
            seen.len(),
            routes.trees[0].size(),
            start.elapsed()
        );
        assert!(seen.len() <= limits.routes);
        assert!(seen.iter().all(|route| route.len() <= 512));
        assert_eq!(routes.overflows(), none);
        assert!(routes.trees[0].size().0 <= tree::most_nodes(&limits));
    }
}

proptest! {
    #[test]
    fn any_paths_give_bounded_routes_in_plain_characters(paths in prop::collection::vec(("[/a-c0-9%{}.é-]{0,40}", 0u16..6), 1..400)) {
        let limits = Limits { services: 4, routes: 12, words: 3, first_words: 4, paths: 16 };
        let (mut first, mut second) = (Routes::new(limits), Routes::new(Limits { paths: 2, ..limits }));
        let shop = resource("shop");
        let mut seen = BTreeSet::new();
        for (path, status) in &paths {
            let path = format!("/{path}");
            let route = first.route(&shop, Kind::Server, &path, Some(400 + status));
            // What is remembered changes nothing but the time it takes.
            prop_assert_eq!(&route, &second.route(&shop, Kind::Server, &path, Some(400 + status)));
            if let Some(route) = route {
                prop_assert!(route.starts_with('/'));
                prop_assert!(route.is_ascii());
                prop_assert!(route.split('/').count() <= 10);
                seen.insert(route);
            }
        }
        prop_assert!(seen.len() <= limits.routes);
        prop_assert_eq!(first.overflows(), second.overflows());
    }
}
