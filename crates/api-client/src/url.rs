use landfall_api_types::{ApiError, codes};

/// Where the configuration server listens: `https://host:port`, port 8443 when none is named.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ServerUrl {
    host: String,
    port: u16,
}

const PORT_DEFAULT: u16 = 8443;

impl ServerUrl {
    pub(crate) fn parse(url: &str) -> Result<Self, ApiError> {
        let wrong =
            || ApiError::new(&codes::BAD_REQUEST, format!("{url:?} is not https://host[:port]"));
        let rest = url.strip_prefix("https://").ok_or_else(wrong)?.trim_end_matches('/');
        // The last colon separates the port, unless it stands within the brackets of an IPv6
        // address.
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => {
                (host, port.parse().map_err(|_| wrong())?)
            }
            _ => (rest, PORT_DEFAULT),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() || host.contains(['/', '?', '#', '@', ' ']) {
            return Err(wrong());
        }
        Ok(Self { host: host.to_owned(), port })
    }

    pub(crate) fn address(&self) -> (&str, u16) {
        (&self.host, self.port)
    }

    /// Value of the Host header.
    pub(crate) fn authority(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_with_and_without_port_and_of_both_families() {
        let authority = |url| ServerUrl::parse(url).map(|url| url.authority());
        assert_eq!(authority("https://localhost:1234").expect("good"), "localhost:1234");
        assert_eq!(authority("https://192.0.2.1/").expect("good"), "192.0.2.1:8443");
        assert_eq!(authority("https://[2001:db8::1]:99").expect("good"), "[2001:db8::1]:99");
        assert_eq!(authority("https://[::1]").expect("good"), "[::1]:8443");
        for wrong in ["", "http://a:1", "https://", "https://a:b", "https://a:70000", "https://a/b"]
        {
            assert_eq!(authority(wrong).expect_err(wrong).code, codes::BAD_REQUEST.name);
        }
    }
}
