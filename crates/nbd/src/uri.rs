use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The NBD URI of an export on a Unix socket, as nbdinfo, nbdcopy, nbdfuse, nbdkit, qemu-img and
/// fio take it:
/// `nbd+unix:///EXPORT?socket=PATH`.
///
/// Both parts are percent-encoded (RFC 3986 section 2.1). `/` is left as it is, because every
/// client reads the rest of the path as the name, and `@` too, which is legal there. A name that
/// begins with `/` is not usable in QEMU, which removes leading slashes.
#[must_use]
pub fn unix_uri(socket: &Path, export: &str) -> String {
    let mut uri = String::from("nbd+unix:///");
    encode(&mut uri, export.as_bytes());
    uri.push_str("?socket=");
    encode(&mut uri, socket.as_os_str().as_bytes());
    uri
}

/// The NBD URI of an export on TCP with TLS: `nbds://HOST:PORT/EXPORT`. `host` is a name, an IPv4
/// address, or an IPv6 address without brackets.
///
/// libnbd's programs take the directory of certificates in it as well: append
/// `?tls-certificates=DIR`.
#[must_use]
pub fn tls_uri(host: &str, port: u16, export: &str) -> String {
    let mut uri = String::from("nbds://");
    if host.contains(':') {
        write!(uri, "[{host}]").expect("writing to a string can't fail");
    } else {
        encode(&mut uri, host.as_bytes());
    }
    write!(uri, ":{port}/").expect("writing to a string can't fail");
    encode(&mut uri, export.as_bytes());
    uri
}

fn encode(out: &mut String, bytes: &[u8]) {
    for byte in bytes {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' => out.push(char::from(*byte)),
            b'-' | b'.' | b'_' | b'~' | b'/' | b'@' => out.push(char::from(*byte)),
            _ => write!(out, "%{byte:02X}").expect("writing to a string can't fail"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{tls_uri, unix_uri};
    use std::path::Path;

    #[test]
    fn names_of_views_stay_readable_and_the_rest_is_encoded() {
        let socket = Path::new("/run/land fall/nbd.sock");
        assert_eq!(
            unix_uri(socket, "machine/0@latest"),
            "nbd+unix:///machine/0@latest?socket=/run/land%20fall/nbd.sock"
        );
        assert_eq!(
            unix_uri(Path::new("/s"), "a?b#c%é"),
            "nbd+unix:///a%3Fb%23c%25%C3%A9?socket=/s"
        );
        assert_eq!(
            tls_uri("mt.example", 10809, "web 1/0@latest"),
            "nbds://mt.example:10809/web%201/0@latest"
        );
        assert_eq!(tls_uri("fd00::1", 1, "a"), "nbds://[fd00::1]:1/a");
    }
}
