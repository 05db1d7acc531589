//! What everything above uses: addresses that say whose they are, the moment, durations as people write them, errors with their causes, who may
//! change a file, what every connection has set.
pub mod addr;
pub mod ahead;
pub mod causes;
pub mod clock;
pub mod duration;
pub mod ownership;
pub mod size;
pub mod socket;
