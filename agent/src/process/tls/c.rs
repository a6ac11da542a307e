//! TLS libraries written in C, by the names of their functions: OpenSSL 1.1 and 3, BoringSSL, GnuTLS. Executables that carry
//! a library, as Node does, have the same names.

use agent_common::tls::function;

use super::code;
use super::elf::Image;
use super::names::Defined;
use super::{Kind, Place};

const FUNCTIONS: [(&str, u64); 16] = [
    ("SSL_read", function::SSL_READ),
    ("SSL_read_ex", function::SSL_READ_EX),
    ("SSL_write", function::SSL_WRITE),
    ("SSL_write_ex", function::SSL_WRITE_EX),
    ("SSL_write_ex2", function::SSL_WRITE_EX2),
    ("SSL_sendfile", function::SSL_SENDFILE),
    ("SSL_do_handshake", function::SSL_HANDSHAKE),
    ("SSL_free", function::SSL_FREE),
    ("SSL_set_accept_state", function::SSL_BEGINS),
    ("SSL_set_connect_state", function::SSL_BEGINS),
    ("gnutls_record_recv", function::GNUTLS_RECV),
    ("gnutls_record_send", function::GNUTLS_SEND),
    ("gnutls_record_send2", function::GNUTLS_SEND2),
    ("gnutls_handshake", function::GNUTLS_HANDSHAKE),
    ("gnutls_deinit", function::GNUTLS_DEINIT),
    // Node has it beside its OpenSSL.
    ("nghttp2_hd_inflate_hd_nv", function::HPACK_INFLATE),
];

/// Functions that are the next one with fewer arguments, since OpenSSL 3.3 and GnuTLS 3.6.3. One that calls the other is not
/// hooked, as the same octets would be seen twice; one with a copy of the other inside is.
const SHORTER: [(u64, u64); 2] =
    [(function::SSL_WRITE_EX, function::SSL_WRITE_EX2), (function::GNUTLS_SEND, function::GNUTLS_SEND2)];

/// OpenSSL's functions of which each passes on to the same one inside, which has no name: the first with its arguments as they
/// are, the others by a call of their own or by way of the first.
const FORMS: [&[u64]; 3] = [
    &[function::SSL_READ_EX, function::SSL_READ],
    &[function::SSL_WRITE_EX2, function::SSL_WRITE_EX, function::SSL_WRITE],
    &[function::SSL_WRITE_EX, function::SSL_WRITE],
];

/// The function of this name. Symbols that are not for the dynamic linker may have a version behind an `@`.
pub(super) fn function(name: &[u8]) -> Option<u64> {
    let end = memchr::memchr(b'@', name).unwrap_or(name.len());
    FUNCTIONS.iter().find(|(known, _)| known.as_bytes() == &name[..end]).map(|(_, function)| *function)
}

/// Where to hook functions that are called as C's are, rustls' among them.
pub(super) fn places(image: &Image<'_>, defined: &[Defined]) -> Vec<Place> {
    let mut defined = defined.to_vec();
    for forms in FORMS {
        if let Some(inside) = inside(image, &defined, forms) {
            defined.retain(|defined| !forms.contains(&defined.function));
            defined.push(inside);
        }
    }
    let passes_on = |outer: &Defined| {
        let longer = SHORTER.iter().find(|(shorter, _)| *shorter == outer.function).map(|(_, longer)| *longer);
        defined.iter().any(|inner| Some(inner.function) == longer && code::calls(image, outer, inner.address))
    };
    let hooked = defined.iter().filter(|defined| !passes_on(defined));
    let places = hooked.filter_map(|defined| {
        let address = code::emulated(image, defined.address).unwrap_or(defined.address);
        let at = image.place_of_code(address)?;
        let place = |kind| Place { function: defined.function, at, kind };
        Some([Some(place(Kind::Entry)), returns(defined.function).then(|| place(Kind::Return))])
    });
    places.flatten().flatten().collect()
}

/// The function that all these forms of one call pass on to, where a hook costs less than at theirs: compilers make it begin
/// with `push`, and the forms with room for what it returns. What it takes and returns is what the first form does.
fn inside(image: &Image<'_>, defined: &[Defined], forms: &[u64]) -> Option<Defined> {
    let all = |function: u64| defined.iter().filter(move |defined| defined.function == function);
    let (&first, others) = forms.split_first()?;
    let first = all(first).next()?;
    let address = code::passes_on(image, first)?;
    code::emulated(image, address)?;
    let passes_on = |form: &Defined| [address, first.address].iter().any(|to| code::calls(image, form, *to));
    let none_else = forms.iter().all(|form| all(*form).count() == 1);
    let all_pass_on = none_else && others.iter().flat_map(|form| all(*form)).all(passes_on);
    all_pass_on.then_some(Defined { address, size: 0, ..*first })
}

/// Whether anything is to be learnt when it returns.
fn returns(function: u64) -> bool {
    !matches!(
        function,
        function::SSL_FREE
            | function::SSL_BEGINS
            | function::GNUTLS_DEINIT
            | function::RUSTLS_READ
            | function::RUSTLS_DROP
            | function::HPACK_INFLATE
    )
}
