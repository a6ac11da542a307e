//! rustls, by the mangled names of its functions (<https://github.com/rustls/rustls>, 0.21 to 0.23).
//!
//! Programs call it through generic functions and small ones that the compiler puts into their callers; but all plaintext
//! goes through functions of `CommonState` that are called from several places each, and so remain functions of their own.

use agent_common::tls::function;

/// Names as demangled, without hashes.
const FUNCTIONS: [(&str, u64); 4] = [
    ("rustls::common_state::CommonState::take_received_plaintext", function::RUSTLS_READ),
    ("rustls::common_state::CommonState::buffer_plaintext", function::RUSTLS_WRITE),
    ("rustls::common_state::CommonState::send_some_plaintext", function::RUSTLS_WRITE_SLICE),
    ("core::ptr::drop_in_place<rustls::common_state::CommonState>", function::RUSTLS_DROP),
];

/// The function that has this mangled name, of either mangling.
pub(super) fn function(mangled: &[u8]) -> Option<u64> {
    let mangled = std::str::from_utf8(mangled).ok().filter(|mangled| mangled.contains("CommonState"))?;
    let name = format!("{:#}", rustc_demangle::try_demangle(mangled).ok()?);
    // The newer mangling tells `<A>::b` and `b::<A>` where the legacy one has `A::b` and `b<A>`.
    let name = name.replace("::<", "<").replace(">::", "::");
    let name = name.strip_prefix('<').unwrap_or(&name);
    FUNCTIONS.iter().find(|(known, _)| *known == name).map(|(_, function)| *function)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_manglings_and_nothing_else() {
        let cases = [
            (
                "_ZN6rustls12common_state11CommonState16buffer_plaintext17h1b4aa1a4731c3204E",
                Some(function::RUSTLS_WRITE),
            ),
            (
                "_ZN6rustls12common_state11CommonState16buffer_plaintext17h1b4aa1a4731c3204E.llvm.1682608260992066340",
                Some(function::RUSTLS_WRITE),
            ),
            (
                "_RNvMs_NtCs4fqI2P2rA04_6rustls12common_stateNtB4_11CommonState23take_received_plaintext",
                Some(function::RUSTLS_READ),
            ),
            (
                "_ZN6rustls12common_state11CommonState19send_some_plaintext17h0123456789abcdefE",
                Some(function::RUSTLS_WRITE_SLICE),
            ),
            (
                "_ZN4core3ptr54drop_in_place$LT$rustls..common_state..CommonState$GT$17h2c458e7c3cab628dE",
                Some(function::RUSTLS_DROP),
            ),
            (
                "_RINvNtCs1234_4core3ptr13drop_in_placeNtNtCs4fqI2P2rA04_6rustls12common_state11CommonStateEB4_",
                Some(function::RUSTLS_DROP),
            ),
            ("_ZN6rustls12common_state11CommonState16buffer_plaintext17h1b4aa1a4731c3204E.cold", None),
            ("_ZN5other12common_state11CommonState16buffer_plaintext17h1b4aa1a4731c3204E", None),
            ("_ZN6rustls12common_state11CommonState17send_close_notify17hd973a537cd7bba79E", None),
            ("rustls::common_state::CommonState::buffer_plaintext", None),
            ("", None),
        ];
        for (mangled, expected) in cases {
            assert_eq!(function(mangled.as_bytes()), expected, "{mangled}");
        }
        assert_eq!(function(b"_ZN\xff11CommonState"), None);
    }
}
