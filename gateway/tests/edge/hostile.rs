//! Broken and hostile clients. Each gets exactly the answer that the tables say, or none; after
//! each the gateway answers a good request; after all of them it holds nothing and has not grown.

mod bodies;
mod framing;
mod heads;
mod http2;
mod phases;
