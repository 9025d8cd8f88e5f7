//! A trace of requests: popularity by Zipf's law, and lengths as media has them.

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand_distr::{Distribution, LogNormal, Zipf};

/// Shape of a trace.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TraceShape {
    pub(crate) requests: usize,
    pub(crate) objects: usize,
    pub(crate) exponent: f64,
}

/// A trace: the object of each request, and the length of each object.
pub(crate) struct Trace {
    pub(crate) requests: Vec<u32>,
    pub(crate) lengths: Vec<u64>,
}

/// Seed of every trace, so that it is always the same one.
const SEED: u64 = 7;

/// Median length of an object, in bytes.
const MEDIAN_BYTES: f64 = 500_000.0;

/// Standard deviation of the logarithm of the lengths. The mean is three times the median then.
const DEVIATION: f64 = 1.5;

/// Maximum length of an object, in bytes.
const LONGEST_BYTES: f64 = 1e9;

impl Trace {
    #[allow(
        clippy::expect_used,
        reason = "the parameters of every shape are positive"
    )]
    pub(crate) fn new(shape: TraceShape) -> Self {
        let mut rng = StdRng::seed_from_u64(SEED);
        let lengths = (0..shape.objects).map(|_| length(&mut rng)).collect();
        let popularity =
            Zipf::new(shape.objects as f64, shape.exponent).expect("positive parameters");
        let requests = (0..shape.requests).map(|_| popularity.sample(&mut rng) as u32 - 1);
        Trace {
            requests: requests.collect(),
            lengths,
        }
    }

    /// Bytes of all objects.
    pub(crate) fn all_bytes(&self) -> u64 {
        self.lengths.iter().sum()
    }
}

#[allow(clippy::expect_used, reason = "both constants are finite")]
fn length(rng: &mut StdRng) -> u64 {
    let bytes = LogNormal::new(MEDIAN_BYTES.ln(), DEVIATION).expect("finite parameters");
    bytes.sample(rng).clamp(1.0, LONGEST_BYTES) as u64
}
