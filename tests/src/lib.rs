//! The whole thing through real sockets and a real kernel.
