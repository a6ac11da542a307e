//! Octets as the beginning of a TLS handshake: whatever they are, a part of them says nothing that the whole does not. The first
//! two octets say where the part ends.
#![no_main]

// By path, not through the `agent` crate: the parsers depend on nothing of it, and so the fuzzer builds in seconds.
#[allow(dead_code, unused_imports, reason = "a target uses a part of the module")]
#[path = "../../agent/src/protocol/mod.rs"]
mod protocol;

use libfuzzer_sys::fuzz_target;

use self::protocol::tls::{Choice, Hello};

fuzz_target!(|octets: &[u8]| {
    let Some((cut, octets)) = octets.split_first_chunk::<2>() else { return };
    let part = &octets[..octets.len().min(u16::from_le_bytes(*cut).into())];
    for headless in [false, true] {
        match (Hello::read(part, headless), Hello::read(octets, headless)) {
            (None, _) => {}
            (Some(Hello::Client { server_name, offered }), Some(Hello::Client { server_name: name, offered: all })) => {
                assert!(server_name.is_none() || server_name == name, "{server_name:?} {name:?}");
                assert!(offered.is_empty() || offered == all, "{offered:?} {all:?}");
            }
            (Some(Hello::Server { version, choice }), Some(Hello::Server { version: agreed, choice: chosen })) => {
                assert!(version.is_none() || version == agreed, "{version:?} {agreed:?}");
                assert!(choice == Choice::Unseen || choice == chosen, "{choice:?} {chosen:?}");
            }
            (part, whole) => panic!("{part:?} {whole:?}"),
        }
    }
});
