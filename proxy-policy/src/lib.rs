//! Policy files in, decisions out. Pure: no sockets, no clock, no file system.
