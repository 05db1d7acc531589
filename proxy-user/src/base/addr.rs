//! Addresses as newtypes, so that one cannot be taken for another.
use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

macro_rules! address {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub struct $name(pub SocketAddr);

        impl $name {
            /// The IP address.
            #[must_use]
            pub fn ip(self) -> IpAddr {
                self.0.ip()
            }

            /// The port.
            #[must_use]
            pub fn port(self) -> u16 {
                self.0.port()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

address! {
    /// The bot's own end of a connection, as the proxy's listener sees it.
    ClientAddr
}
address! {
    /// Where the proxy listens.
    ListenAddr
}
address! {
    /// Where the bot asked to go, as the kernel remembered it. Never v4-mapped.
    OriginalDst
}
address! {
    /// Where the proxy dials on the bot's behalf.
    UpstreamAddr
}
