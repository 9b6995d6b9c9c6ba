//! The gateway's edge as clients and pods meet it: a whole gateway on a free port, in front of
//! pods that echo, that follow a script, or that are simulated.
#![expect(clippy::panic, reason = "a test that cannot go on says why")]

mod budget;
mod cancel;
mod chaos;
mod cordon;
mod drain;
mod epp;
mod faults;
mod hostile;
mod log;
mod models;
mod names;
mod native;
mod predictions;
mod queue;
mod ranks;
mod relay;
mod rescue;
mod restart;
mod retry;
mod split;
mod support;
mod survive;
mod tls;
mod traces;
mod why;
