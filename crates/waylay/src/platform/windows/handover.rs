//! The addresses that whoever started this process tells it to listen on. Windows passes no sockets.

use std::{
    env,
    net::{SocketAddr, TcpListener},
};

use crate::{error::StartError, platform::Sockets};

pub(crate) fn sockets_from_env(
    listen: impl Fn(SocketAddr) -> Result<TcpListener, StartError>,
) -> Result<Sockets, StartError> {
    let text = env::var("WAYLAY_LISTEN").unwrap_or_default();
    let listeners = addresses(&text)?.into_iter().map(listen).collect::<Result<_, _>>()?;
    Ok(Sockets { listeners, datagrams: Vec::new() })
}

/// Addresses with commas between them.
fn addresses(text: &str) -> Result<Vec<SocketAddr>, StartError> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    let addresses = parts.map(address).collect::<Result<Vec<_>, _>>()?;
    if addresses.is_empty() { Err(StartError::NoListeners) } else { Ok(addresses) }
}

fn address(text: &str) -> Result<SocketAddr, StartError> {
    text.parse().map_err(|_not_one| StartError::NotAnAddress { text: text.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_separated_by_commas() {
        let found = addresses("127.0.0.1:8080, [::1]:8080,").unwrap();
        assert_eq!(found, ["127.0.0.1:8080".parse().unwrap(), "[::1]:8080".parse().unwrap()]);
    }

    #[test]
    fn what_is_no_address_is_named() {
        for text in ["8080", "localhost:8080", "127.0.0.1"] {
            let error = addresses(&format!("127.0.0.1:1,{text}")).unwrap_err();
            assert!(matches!(&error, StartError::NotAnAddress { text: named } if named == text), "{error}");
        }
    }

    #[test]
    fn without_an_address_it_says_what_to_set() {
        for nothing in ["", " , "] {
            let error = addresses(nothing).unwrap_err();
            assert!(matches!(error, StartError::NoListeners), "{error}");
            assert!(error.to_string().contains("WAYLAY_LISTEN"), "{error}");
        }
    }
}
