//! Functions of TLS libraries whose calls show plaintext: what the cookie of a hook says about the place it is at.

/// Which function a hook is at, whose registers tell what it was given. Each code is at the entry; the hook where it
/// returns has the same with [`RETURN`].
pub mod function {
    /// OpenSSL and BoringSSL: `int SSL_read(SSL *, void *, int)`.
    pub const SSL_READ: u64 = 1;
    /// `int SSL_read_ex(SSL *, void *, size_t, size_t *)`: 1 when it worked, octets in the last argument's place.
    pub const SSL_READ_EX: u64 = 2;
    /// `int SSL_write(SSL *, const void *, int)`.
    pub const SSL_WRITE: u64 = 3;
    /// `int SSL_write_ex(SSL *, const void *, size_t, size_t *)`, and `SSL_write_ex2` with flags in between.
    pub const SSL_WRITE_EX: u64 = 4;
    pub const SSL_WRITE_EX2: u64 = 5;
    /// `ossl_ssize_t SSL_sendfile(SSL *, int fd, off_t, size_t, int)`.
    pub const SSL_SENDFILE: u64 = 6;
    /// `int SSL_do_handshake(SSL *)`.
    pub const SSL_HANDSHAKE: u64 = 7;
    /// `void SSL_free(SSL *)`; no return is hooked.
    pub const SSL_FREE: u64 = 8;
    /// `void SSL_set_accept_state(SSL *)` and `SSL_set_connect_state`, before a handshake; no return is hooked. A program may leave
    /// the handshake to `SSL_read`, as Node's servers do.
    pub const SSL_BEGINS: u64 = 9;
    /// `ssize_t gnutls_record_recv(gnutls_session_t, void *, size_t)`.
    pub const GNUTLS_RECV: u64 = 16;
    /// `ssize_t gnutls_record_send(gnutls_session_t, const void *, size_t)`.
    pub const GNUTLS_SEND: u64 = 17;
    /// `ssize_t gnutls_record_send2(gnutls_session_t, const void *, size_t, size_t pad, unsigned flags)`.
    pub const GNUTLS_SEND2: u64 = 18;
    /// `int gnutls_handshake(gnutls_session_t)`.
    pub const GNUTLS_HANDSHAKE: u64 = 19;
    /// `void gnutls_deinit(gnutls_session_t)`; no return is hooked.
    pub const GNUTLS_DEINIT: u64 = 20;
    /// `crypto/tls.(*Conn).Read(c, b)`, by Go's register ABI: `c`, address, length and capacity of `b` in the first four
    /// argument registers; the number of octets in the first one at each `RET`.
    pub const GO_READ: u64 = 32;
    pub const GO_WRITE: u64 = 33;
    /// `crypto/tls.(*Conn).clientHandshake(c, ctx)` and `serverHandshake`.
    pub const GO_HANDSHAKE: u64 = 34;
    /// The codes of Go's functions.
    pub const GO: core::ops::RangeInclusive<u64> = GO_READ..=GO_HANDSHAKE;
    /// rustls 0.21 to 0.23: `CommonState::take_received_plaintext(&mut self, Payload)`: the connection; where the payload
    /// is, three words: one that tells who owns it, address, length. Each record that was decrypted comes by, in order,
    /// within the call that processes what the same thread has just read from the socket. No return is hooked.
    ///
    /// The connection is the same address as in the other functions, and stays as long as the program does not move the
    /// connection. tokio-rustls moves it once, after the handshake; data that came with the end of the handshake has
    /// been handed over at the former address by then.
    pub const RUSTLS_READ: u64 = 48;
    /// rustls 0.23: `CommonState::buffer_plaintext(&mut self, OutboundChunks, &mut ChunkVecBuffer) -> usize`: the
    /// connection; where the payload is, four words: 0, address, length; or address and count of slices (each address
    /// and length), and from which octet of theirs to which one is meant. Returns how many octets were taken. They are
    /// encrypted at once and sent by a later call, as a rule of the same thread.
    pub const RUSTLS_WRITE: u64 = 49;
    /// rustls 0.21 and 0.22: `CommonState::send_some_plaintext(&mut self, &[u8]) -> usize`: the connection, address,
    /// length. Returns how many octets were taken.
    pub const RUSTLS_WRITE_SLICE: u64 = 50;
    /// rustls: the connection is dropped, where the compiler made that a function of its own; no return is hooked.
    pub const RUSTLS_DROP: u64 = 51;
    /// `golang.org/x/net/http2/hpack.(*Decoder).Write(d, p)`, which is about no TLS: the decoder, address and length of what is
    /// decoded. It is hooked only for moments, where the table that it decodes by is to be known. No return is hooked.
    pub const HPACK_DECODE: u64 = 64;
    /// `ssize_t nghttp2_hd_inflate_hd_nv(nghttp2_hd_inflater *, nghttp2_hd_nv *, int *, const uint8_t *in, size_t inlen, int)`, likewise: it
    /// is given the rest of a block for each field.
    pub const HPACK_INFLATE: u64 = 66;
    /// `hpack.(*Encoder).WriteField(e, f)`, likewise: the encoder.
    pub const HPACK_ENCODE: u64 = 65;
}

/// The bit of a cookie that says that the function returns here.
pub const RETURN: u64 = 1 << 32;

/// Where to find what a function of Go returns while it calls what it had deferred, in a cookie with [`RETURN`]: by then its
/// result stands on its stack. Not 0 as a whole, as no function begins where the deferred one does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Deferred {
    /// Octets from the function's stack pointer to its first result; less than [`Self::SLOTS`].
    pub slot: u16,
    /// Octets from the function's beginning to the hook, behind its end: return addresses between them are the function's.
    pub back: u16,
}

impl Deferred {
    pub const SLOTS: u16 = 1 << 15;

    #[must_use]
    pub const fn cookie(self) -> u64 {
        (self.slot as u64) << 33 | (self.back as u64) << 48
    }

    /// `None` for cookies of other hooks.
    #[must_use]
    pub const fn of(cookie: u64) -> Option<Self> {
        let (slot, back) = ((cookie >> 33) as u16 & (Self::SLOTS - 1), (cookie >> 48) as u16);
        if back == 0 { None } else { Some(Self { slot, back }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_tell_what_was_put_in() {
        for (slot, back) in [(0, 1), (Deferred::SLOTS - 1, 1), (8, u16::MAX), (0x5555, 0xaaaa)] {
            let deferred = Deferred { slot, back };
            let cookie = function::GO_READ | RETURN | deferred.cookie();
            assert_eq!(Deferred::of(cookie), Some(deferred));
            assert_eq!(cookie as u32, function::GO_READ as u32);
        }
        assert_eq!(Deferred::of(function::RUSTLS_DROP | RETURN), None);
    }
}
