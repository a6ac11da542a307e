use std::sync::Arc;

use proptest::prelude::*;
use rustls::pki_types::{PrivatePkcs8KeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, SupportedProtocolVersion};

use super::*;

/// A vector behind its length, in so many octets.
fn vector(len: usize, content: &[u8]) -> Vec<u8> {
    [&content.len().to_be_bytes()[8 - len..], content].concat()
}

fn extension(kind: u16, data: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &vector(2, data)].concat()
}

fn message(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    let message = [&[kind][..], &vector(3, &parts.concat())].concat();
    [&[HANDSHAKE, 3, 1][..], &vector(2, &message)].concat()
}

const RANDOM: [u8; 32] = [7; 32];

fn client_hello(extensions: &[Vec<u8>]) -> Vec<u8> {
    let fields: [&[u8]; 5] = [&[3, 3], &RANDOM, &[2, 9, 9], &[0, 4, 0x13, 1, 0x13, 2], &[1, 0]];
    message(CLIENT_HELLO, &[&fields.concat(), &vector(2, &extensions.concat())])
}

fn server_hello(version: u16, extensions: &[Vec<u8>]) -> Vec<u8> {
    let fields: [&[u8]; 4] = [&version.to_be_bytes(), &RANDOM, &[0], &[0x13, 1, 0]];
    message(SERVER_HELLO, &[&fields.concat(), &vector(2, &extensions.concat())])
}

fn sni(name: &[u8]) -> Vec<u8> {
    extension(0, &vector(2, &[&[0][..], &vector(2, name)].concat()))
}

fn alpn(names: &[&[u8]]) -> Vec<u8> {
    extension(16, &vector(2, &names.iter().flat_map(|name| vector(1, name)).collect::<Vec<_>>()))
}

fn client(server_name: Option<&str>, offered: &[&'static str]) -> Hello {
    Hello::Client { server_name: server_name.map(Into::into), offered: offered.to_vec() }
}

fn server(version: Option<Version>, choice: Choice) -> Hello {
    Hello::Server { version, choice }
}

#[test]
fn clients_say_whom_they_ask_and_what_they_speak() {
    let unknown = || extension(0xfe0d, b"of a form that nobody knows");
    let cases = [
        (
            "all",
            vec![sni(b"api.example"), alpn(&[b"h2", b"http/1.1"])],
            client(Some("api.example"), &["h2", "http/1.1"]),
        ),
        ("in any order", vec![unknown(), alpn(&[b"h2"]), unknown(), sni(b"a")], client(Some("a"), &["h2"])),
        ("nothing", vec![], client(None, &[])),
        ("another protocol", vec![alpn(&[b"acme-tls/1"])], client(None, &[])),
        ("one of them twice", vec![alpn(&[b"h2", b"spdy/3", b"h2"])], client(None, &["h2"])),
        ("a second list", vec![alpn(&[b"h2"]), alpn(&[b"http/1.1"])], client(None, &["h2"])),
        ("a second name", vec![sni(b"a.example"), sni(b"b.example")], client(Some("a.example"), &[])),
        ("no name", vec![sni(b"")], client(None, &[])),
        ("no host's name", vec![sni(b"a\r\nb: c")], client(None, &[])),
        ("no UTF-8", vec![sni(b"\xff\xfe")], client(None, &[])),
        ("a name that is too long", vec![sni(&[b'a'; 256])], client(None, &[])),
        ("lengths that lie", vec![extension(0, b"\0\xff\0\0\x04name"), alpn(&[b"h2"])], client(None, &["h2"])),
        ("a list that lies", vec![extension(16, b"\0\x03\x09h2"), sni(b"a")], client(Some("a"), &[])),
        ("no list", vec![extension(16, b""), extension(0, b"")], client(None, &[])),
    ];
    for (what, extensions, expected) in cases {
        let octets = client_hello(&extensions);
        assert_eq!(Hello::read(&octets, false), Some(expected.clone()), "{what}");
        assert_eq!(Hello::read(&octets[HEAD..], true), Some(expected), "{what}, without the head");
    }
}

#[test]
fn servers_say_what_they_have_chosen() {
    let selected = |version: u16| extension(43, &version.to_be_bytes());
    let h2 = || Choice::Protocol("h2".into());
    let cases = [
        ("1.3", server_hello(0x0303, &[selected(0x0304)]), server(Some(Version::Tls13), Choice::Unseen)),
        ("1.2", server_hello(0x0303, &[alpn(&[b"h2"])]), server(Some(Version::Tls12), h2())),
        ("1.2 alone", server_hello(0x0303, &[]), server(Some(Version::Tls12), Choice::Nothing)),
        ("1.1", server_hello(0x0302, &[]), server(Some(Version::Tls11), Choice::Nothing)),
        ("1.0", server_hello(0x0301, &[]), server(Some(Version::Tls10), Choice::Nothing)),
        ("SSL", server_hello(0x0300, &[]), server(Some(Version::Ssl30), Choice::Nothing)),
        ("a draft", server_hello(0x0303, &[selected(0x7f1c)]), server(None, Choice::Unseen)),
        ("no version", server_hello(0x0303, &[extension(43, b"\x03")]), server(None, Choice::Unseen)),
        ("two", server_hello(0x0303, &[alpn(&[b"h2", b"h3"])]), server(Some(Version::Tls12), Choice::Unseen)),
        ("odd", server_hello(0x0303, &[alpn(&[b"\0\n"])]), server(Some(Version::Tls12), Choice::Unseen)),
    ];
    for (what, octets, expected) in cases {
        assert_eq!(Hello::read(&octets, false), Some(expected), "{what}");
    }
    // TLS before extensions: the message ends.
    let fields: [&[u8]; 4] = [&[3, 1], &RANDOM, &[0], &[0, 5, 0]];
    let octets = message(SERVER_HELLO, &fields);
    assert_eq!(Hello::read(&octets, false), Some(server(Some(Version::Tls10), Choice::Nothing)));
    assert_eq!(Hello::read(&octets[..octets.len() - 1], false), Some(server(None, Choice::Unseen)));
}

#[test]
fn other_records_are_no_hello() {
    let certificate = message(11, &[&[0; 40]]);
    for octets in
        [&b""[..], b"\x16", b"\x16\x03\x01\0", b"\x17\x03\x03\0\x10abcdefghijklmnop", b"GET / HTTP/1.1", &certificate]
    {
        assert_eq!(Hello::read(octets, false), None, "{octets:?}");
    }
}

/// A hello that goes on in a second record: what is there of it is read, and the second head is not taken for a part of it.
#[test]
fn what_follows_the_record_is_not_read() {
    let whole = client_hello(&[sni(b"a.example"), extension(0xfe0d, &[0; 40]), alpn(&[b"h2"])]);
    let cut = 80;
    let parts = [&[HANDSHAKE, 3, 1][..], &vector(2, &whole[HEAD..cut]), &[HANDSHAKE, 3, 1], &vector(2, &whole[cut..])];
    assert_eq!(Hello::read(&parts.concat(), false), Some(client(Some("a.example"), &[])));
}

#[test]
fn the_choice_comes_before_what_is_spoken() {
    let session = |offered: &[&'static str], version, choice| {
        let mut session = Session::default();
        session.learn(client(None, offered));
        session.learn(server(version, choice));
        session
    };
    let (tls12, tls13) = (Some(Version::Tls12), Some(Version::Tls13));
    let chosen = |name: &str| Choice::Protocol(name.into());
    let cases = [
        (session(&["h2", "http/1.1"], tls12, chosen("h2")), "h2", Some("h2")),
        (session(&[], tls12, chosen("http/1.1")), "http/1.1", Some("http/1.1")),
        (session(&["http/1.1"], tls12, Choice::Nothing), "http/1.1", None),
        (session(&["h2", "http/1.1"], tls13, Choice::Unseen), "http/1.1", Some("http/1.1")),
        (session(&["h2"], tls13, Choice::Unseen), "http/1.1", None),
        (session(&[], None, Choice::Unseen), "h2", None),
    ];
    for (session, spoken, expected) in cases {
        assert_eq!(session.next_protocol(spoken), expected, "{session:?}, {spoken} spoken");
    }
}

/// The first records of both sides of a handshake that rustls does.
fn shake_hands(version: &'static SupportedProtocolVersion, client: &[&str], server: &[&str]) -> [Vec<u8>; 2] {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let made = rcgen::generate_simple_self_signed(["api.example".to_owned()]).unwrap();
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()).into();
    let certificate = made.cert.der().clone();
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let names = |names: &[&str]| names.iter().map(|name| name.as_bytes().to_vec()).collect();
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder.with_protocol_versions(&[&TLS12, &TLS13]).unwrap().with_no_client_auth();
    let mut config = builder.with_single_cert(vec![certificate], key).unwrap();
    config.alpn_protocols = names(server);
    let mut server = ServerConnection::new(Arc::new(config)).unwrap();
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[version]).unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = names(client);
    let name = ServerName::try_from("api.example").unwrap();
    let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut hellos = [Vec::new(), Vec::new()];
    client.write_tls(&mut hellos[0]).unwrap();
    server.read_tls(&mut &*hellos[0]).unwrap();
    server.process_new_packets().unwrap();
    server.write_tls(&mut hellos[1]).unwrap();
    hellos
}

#[test]
fn handshakes_of_rustls_are_understood() {
    let cases = [
        (&TLS12, &["h2", "http/1.1"][..], &["http/1.1"][..], Version::Tls12, "http/1.1", Some("http/1.1")),
        (&TLS12, &["h2"], &[], Version::Tls12, "http/1.1", None),
        (&TLS13, &["h2", "http/1.1"], &["h2"], Version::Tls13, "h2", Some("h2")),
        (&TLS13, &[], &["h2"], Version::Tls13, "http/1.1", None),
    ];
    for (version, client, server, expected, spoken, next) in cases {
        let mut session = Session::default();
        for octets in shake_hands(version, client, server) {
            session.learn(Hello::read(&octets, false).unwrap());
        }
        assert_eq!(session.server_name.as_deref(), Some("api.example"));
        assert_eq!((session.version, session.next_protocol(spoken)), (Some(expected), next), "{client:?}, {server:?}");
    }
}

/// What a part of a hello says, the whole says too.
fn agrees(part: Option<Hello>, whole: Option<&Hello>) {
    match (part, whole) {
        (None, _) => {}
        (Some(Hello::Client { server_name, offered }), Some(Hello::Client { server_name: name, offered: all })) => {
            assert!(server_name.is_none() || server_name == *name, "{server_name:?}, not {name:?}");
            assert!(offered.is_empty() || offered == *all, "{offered:?}, not {all:?}");
        }
        (Some(Hello::Server { version, choice }), Some(Hello::Server { version: agreed, choice: chosen })) => {
            assert!(version.is_none() || version == *agreed, "{version:?}, not {agreed:?}");
            assert!(choice == Choice::Unseen || choice == *chosen, "{choice:?}, not {chosen:?}");
        }
        (part, whole) => panic!("{part:?}, not {whole:?}"),
    }
}

#[test]
fn what_is_cut_off_is_unknown() {
    let made = [
        client_hello(&[sni(b"api.example"), alpn(&[b"h2", b"http/1.1"]), extension(51, &[0; 1200])]),
        server_hello(0x0303, &[extension(51, &[0; 1200]), extension(43, &[3, 4]), alpn(&[b"h2"])]),
    ];
    let shaken = [&TLS12, &TLS13].map(|version| shake_hands(version, &["h2"], &["h2"])).concat();
    for octets in made.into_iter().chain(shaken) {
        let whole = Hello::read(&octets, false);
        for len in 0..octets.len() {
            agrees(Hello::read(&octets[..len], false), whole.as_ref());
        }
    }
}

proptest! {
    #[test]
    fn any_octets_are_read_and_any_part_agrees(
        kind in 0_u8..4,
        content in proptest::collection::vec(any::<u8>(), 0..300),
        headless: bool,
        bare: bool,
        cut in 0_usize..400,
    ) {
        let octets = if bare { content } else { message(kind, &[&[3, 3], &RANDOM, &[0, 0, 2, 0, 5, 1, 0], &content]) };
        let whole = Hello::read(&octets, headless);
        agrees(Hello::read(&octets[..cut.min(octets.len())], headless), whole.as_ref());
    }

    #[test]
    fn extensions_of_any_content_hide_no_other(kinds in proptest::collection::vec((any::<u16>(), proptest::collection::vec(any::<u8>(), 0..40)), 0..8)) {
        let others = kinds.iter().filter(|(kind, _)| ![0, 16, 43].contains(kind));
        let mut extensions: Vec<_> = others.map(|(kind, data)| extension(*kind, data)).collect();
        extensions.extend([sni(b"api.example"), alpn(&[b"h2"])]);
        prop_assert_eq!(Hello::read(&client_hello(&extensions), false), Some(client(Some("api.example"), &["h2"])));
    }
}
