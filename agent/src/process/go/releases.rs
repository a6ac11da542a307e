//! The fields by which goroutines are told apart, by release of Go, for linux/amd64. Read from the debug information of
//! programs built by each of these: Go 1.18.10, 1.20.14, 1.21.0, 1.21.13, 1.22.12, 1.23.12, 1.24.9, 1.25.4 and 1.26.8.

use super::debug::Offsets;

const GO_1_18: Offsets =
    Offsets { g_m: 48, g_goid: 152, g_parent: 0, m_curg: 192, m_p: 208, m_oldp: 224, p_goidcache: 384 };
const GO_1_21: Offsets = Offsets { g_parent: 272, ..GO_1_18 };
const GO_1_23: Offsets = Offsets { g_goid: 160, g_parent: 280, p_goidcache: 376, ..GO_1_18 };
const GO_1_25: Offsets = Offsets { g_parent: 272, m_curg: 184, m_p: 200, m_oldp: 216, p_goidcache: 376, ..GO_1_18 };
const GO_1_26: Offsets = Offsets { g_parent: 280, m_curg: 184, ..GO_1_18 };

/// The offsets of a release by its name, `go1.26.8`; `None` for releases not known and for builds of one's own, whose names
/// have more after that.
pub(super) fn offsets(version: &str) -> Option<Offsets> {
    let rest = version.strip_prefix("go1.")?;
    let (minor, patch) = rest.split_once('.').unwrap_or((rest, "0"));
    patch.parse::<u16>().ok()?;
    Some(match minor.parse::<u16>().ok()? {
        18..=20 => GO_1_18,
        21 | 22 => GO_1_21,
        23 | 24 => GO_1_23,
        25 => GO_1_25,
        26 => GO_1_26,
        _ => return None,
    })
}
