//! Ports for a server that is killed and started again.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use crate::ProveError;

/// From here on, below the range of which kernels take ports for outgoing connections: one of those
/// could get the port of a killed server, and keep it from starting again. A worker that tries to
/// connect again could even get connected to itself.
const FIRST: u16 = 20_000;

/// Where the range ends.
const LAST: u16 = 30_000;

/// Two ports that no other run takes, as long as this lives.
pub struct Ports {
    /// Where the server serves gRPC.
    pub grpc: SocketAddr,
    /// Where it serves HTTP, if it does.
    pub http: SocketAddr,
    /// Whoever listens on the port before them has both.
    _claim: TcpListener,
}

impl Ports {
    /// Claims two free ports of the loopback interface.
    pub fn claim() -> Result<Ports, ProveError> {
        for first in (FIRST..LAST).step_by(3) {
            match Self::claim_from(first) {
                Err(error) if error.kind() == ErrorKind::AddrInUse => {}
                claimed => return claimed.map_err(|error| ProveError::Listen(local(first), error)),
            }
        }
        Err(ProveError::Listen(local(LAST), ErrorKind::AddrInUse.into()))
    }

    fn claim_from(first: u16) -> std::io::Result<Ports> {
        let claim = TcpListener::bind(local(first))?;
        let (grpc, http) = (local(first + 1), local(first + 2));
        // Somebody else may serve there.
        for address in [grpc, http] {
            TcpListener::bind(address)?;
        }
        Ok(Ports {
            grpc,
            http,
            _claim: claim,
        })
    }
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_gets_what_another_has() {
        let all: Vec<Ports> = (0..3).map(|_| Ports::claim().unwrap()).collect();
        let mut taken: Vec<_> = all
            .iter()
            .flat_map(|ports| [ports.grpc, ports.http])
            .collect();
        taken.sort();
        taken.dedup();
        assert_eq!(taken.len(), 6);
    }
}
