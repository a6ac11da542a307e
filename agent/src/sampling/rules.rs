//! Rates of single services and routes (`sampling` in the configuration file), more specific than the sampler.
//!
//! A rule is looked for where no parent decides: at the root of a trace, whichever exchange that is. What belongs to the
//! trace follows the root, whatever rules its own services have.

use std::fmt;

use globset::{GlobBuilder, GlobMatcher};

use super::Root;
use crate::signal::http;

/// The exchange that a trace begins with.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// `service.name` of its process, be that the server or the client.
    pub service: &'a str,
    /// The request's target as sent; `None` when there was no request.
    pub target: Option<&'a str>,
}

/// A glob that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    #[error("expected a glob such as 'shop*' or '/health*', not nothing")]
    Empty,
    #[error("expected a glob such as 'shop*' or '/health*': {0}")]
    Glob(#[from] globset::Error),
    #[error("expected the glob of a path, such as '/health*' or '/api/**', not '{0}'")]
    NoPath(String),
    #[error("'{0}' is held against the path as sent, where no placeholder stands: write * for it")]
    Placeholder(String),
}

/// The part of the traces that is kept of those that a service begins by requests of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    service: Option<Pattern>,
    route: Option<Pattern>,
    root: Root,
}

/// Placeholders of the guessed routes (`crate::signal::route`): in a glob, braces mean a choice.
const PLACEHOLDERS: [&str; 3] = ["{id}", "{date}", "{param}"];

impl Rule {
    /// A rule for `ratio` (0 to 1) of the traces. Without a glob, every service or every route matches.
    ///
    /// - `service` is held against `service.name`; `*` stands for any text.
    /// - `route` is held against the path of the request's target as sent: without query, not decoded, of an absolute
    ///   target what follows the authority. `*` stops at `/` and `**` does not. What has no path never matches: CONNECT,
    ///   a connection that could not be made.
    ///
    /// # Errors
    /// When a glob cannot be read, or could never match a path.
    pub fn new(service: Option<&str>, route: Option<&str>, ratio: f64) -> Result<Self, RuleError> {
        if let Some(route) = route.filter(|route| !route.is_empty()) {
            if !route.starts_with(['/', '{', '[', '?']) && !route.starts_with("**") {
                return Err(RuleError::NoPath(route.to_owned()));
            }
            if PLACEHOLDERS.iter().any(|placeholder| route.contains(placeholder)) {
                return Err(RuleError::Placeholder(route.to_owned()));
            }
        }
        Ok(Self {
            service: service.map(|glob| Pattern::new(glob, false)).transpose()?,
            route: route.map(|glob| Pattern::new(glob, true)).transpose()?,
            root: Root::ratio(ratio),
        })
    }

    fn matches(&self, service: &str, path: Option<&str>) -> bool {
        self.service.as_ref().is_none_or(|glob| glob.0.is_match(service))
            && self.route.as_ref().is_none_or(|glob| path.is_some_and(|path| glob.0.is_match(path)))
    }
}

/// What the first rule that matches says.
pub(super) fn find(rules: &[Rule], origin: Origin<'_>) -> Option<Root> {
    if rules.is_empty() {
        return None;
    }
    let path = origin.target.and_then(|target| http::path_and_query(target).0);
    rules.iter().find(|rule| rule.matches(origin.service, path)).map(|rule| rule.root)
}

/// A glob, compared and shown as it was written.
#[derive(Clone)]
struct Pattern(GlobMatcher);

impl Pattern {
    fn new(glob: &str, path: bool) -> Result<Self, RuleError> {
        if glob.is_empty() {
            return Err(RuleError::Empty);
        }
        Ok(Self(GlobBuilder::new(glob).literal_separator(path).build()?.compile_matcher()))
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.glob() == other.0.glob()
    }
}

impl Eq for Pattern {}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.glob().glob().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{ParentDecision, Sampler, encode_threshold};
    use super::*;

    const NEVER: f64 = 0.0;
    const ALWAYS: f64 = 1.0;

    fn rule(service: &str, route: &str, ratio: f64) -> Rule {
        let set = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Rule::new(set(service).as_deref(), set(route).as_deref(), ratio).unwrap()
    }

    fn sampler(name: &str) -> Sampler {
        Sampler::from_env(&|variable| (variable == "OTEL_TRACES_SAMPLER").then(|| name.to_owned())).unwrap()
    }

    #[test]
    fn what_a_glob_is_held_against() {
        for (service, route, of, target, expected) in [
            ("shop*", "", "shop-cart", "/x", true),
            ("shop*", "", "a-shop", "/x", false),
            ("unknown_service:*", "", "unknown_service:a/b", "/x", true),
            ("", "/health*", "any", "/healthz", true),
            ("", "/health*", "any", "/health?full=1", true),
            ("", "/health*", "any", "/health/live", false),
            ("", "/health/**", "any", "/health/live/now", true),
            ("", "/{health,ready}", "any", "/ready", true),
            ("", "/item/*", "any", "/item/42", true),
            ("", "/item/*", "any", "/item/4%2F2", true),
            ("", "/item/*", "any", "/item/4/2", false),
            ("", "**/item", "any", "/a/b/item", true),
            ("", "/item", "any", "http://host:80/item?x", true),
            ("", "/item", "any", "host:80", false),
            ("shop", "/item", "shop", "/item", true),
            ("shop", "/item", "shops", "/item", false),
            ("shop", "/item", "shop", "/items", false),
            ("", "", "any", "host:80", true),
        ] {
            let origin = Origin { service: of, target: Some(target) };
            let found = find(&[rule(service, route, ALWAYS)], origin).is_some();
            assert_eq!(found, expected, "{service:?} {route:?} for {target} of {of}");
        }
        let nothing = Origin { service: "shop", target: None };
        assert_eq!(find(&[rule("shop", "", ALWAYS)], nothing), Some(Root::From(0)));
        assert_eq!(find(&[rule("shop", "/**", ALWAYS)], nothing), None);
    }

    #[test]
    fn the_first_that_matches_wins_over_the_sampler() {
        let rules = [rule("shop", "/health", NEVER), rule("shop", "", ALWAYS), rule("", "/health", NEVER)];
        for name in ["always_on", "always_off"] {
            let sampler = sampler(name).with_rules(rules.to_vec());
            for (service, path, expected) in [
                ("shop", "/health", false),
                ("shop", "/", true),
                ("a", "/health", false),
                ("a", "/", name == "always_on"),
            ] {
                let origin = Origin { service, target: Some(path) };
                assert_eq!(sampler.decide([7; 16], None, origin).sampled, expected, "{name} {service} {path}");
            }
        }
    }

    #[test]
    fn a_parents_decision_wins_under_parentbased_alone() {
        let origin = Origin { service: "shop", target: Some("/") };
        let parent = |sampled| Some(ParentDecision { sampled, randomness: None });
        for (name, ratio, expected) in [
            // A parent that keeps, one that does not, one that left it open.
            ("parentbased_always_off", ALWAYS, [true, false, true]),
            ("parentbased_always_on", NEVER, [true, false, false]),
            ("always_off", ALWAYS, [true, true, true]),
            ("always_on", NEVER, [false, false, false]),
        ] {
            let sampler = sampler(name).with_rules(vec![rule("", "", ratio)]);
            let decided = [Some(true), Some(false), None]
                .map(|parent_said| sampler.decide([7; 16], parent(parent_said), origin).sampled);
            assert_eq!(decided, expected, "{name} {ratio}");
        }
    }

    #[test]
    fn the_threshold_is_that_of_the_rule() {
        let sampler = sampler("always_on").with_rules(vec![rule("", "/health", 0.01)]);
        let threshold = |target| {
            let decision = sampler.decide([0xff; 16], None, Origin { service: "a", target: Some(target) });
            decision.threshold.map(encode_threshold)
        };
        assert_eq!(threshold("/health").as_deref(), Some("fd70a"));
        assert_eq!(threshold("/").as_deref(), Some("0"));
    }

    #[test]
    fn globs_that_cannot_be_used_are_refused() {
        for (service, route, expected) in [
            (Some(""), None, "expected a glob such as"),
            (None, Some(""), "expected a glob such as"),
            (Some("[a"), None, "expected a glob such as 'shop*' or '/health*': error parsing glob '[a'"),
            (None, Some("health*"), "expected the glob of a path"),
            (None, Some("*"), "expected the glob of a path"),
            (None, Some("/item/{id}"), "'/item/{id}' is held against the path as sent"),
        ] {
            let error = Rule::new(service, route, 0.5).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }

    proptest! {
        /// Services and routes with rates of their own keep the same traces as far as the lower rate goes.
        #[test]
        fn a_trace_kept_at_a_lower_rate_is_kept_at_a_higher_one(id: [u8; 16], low in 0.0f64..=1.0, high in 0.0f64..=1.0) {
            let (low, high) = (low.min(high), low.max(high));
            let sampler = sampler("always_off").with_rules(vec![rule("low", "", low), rule("", "/high", high)]);
            let kept = |service, target| sampler.decide(id, None, Origin { service, target: Some(target) }).sampled;
            prop_assert!(!kept("low", "/") || kept("other", "/high"));
            prop_assert!(!kept("other", "/"));
        }
    }
}
