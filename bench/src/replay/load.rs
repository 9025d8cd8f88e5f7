//! Requests and their times: the original's load, drawn from a seed, so that every server gets the same.

use crate::store::Media;
use anyhow::{Result, ensure};
use clap::Args;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::Serialize;
use std::time::Duration;

/// GETs of one page.
pub(crate) const GETS_PER_PAGE: usize = 7;

/// Pages in a minute of the original: its report tells of a hundred requests a minute and more.
pub(crate) const PAGES_PER_MINUTE: f64 = 15.0;

/// Within what time a page sends its GETs.
const PAGE_SPREAD: Duration = Duration::from_millis(30);

/// Ids that are asked for though nothing is there. They are few, as each page that links to a lost image asks
/// for the same one.
const MISSING_IDS: usize = 16;

/// How much is asked, and how.
#[derive(Debug, Clone, Args, Serialize)]
pub(crate) struct Load {
    /// How long each server is loaded, in seconds.
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u64).range(2..=3600))]
    pub(crate) seconds: u64,

    /// How many times faster than the original's users; 60 plays one of its minutes a second.
    #[arg(long, value_name = "X", default_value_t = 60.0, value_parser = speed)]
    pub(crate) speed: f64,

    /// Seed of the load and the files. The same seed draws the same.
    #[arg(long, value_name = "N", default_value_t = 7)]
    pub(crate) seed: u64,

    #[command(flatten)]
    pub(crate) shares: Shares,
}

/// The shares of GETs that are no plain download of a whole file.
#[derive(Debug, Clone, Args, Serialize)]
pub(crate) struct Shares {
    /// Share of GETs whose client leaves after a random number of body bytes.
    #[arg(long, value_name = "SHARE", default_value_t = 0.2, value_parser = share)]
    pub(crate) disconnects: f64,

    /// Share of GETs for a range.
    #[arg(long, value_name = "SHARE", default_value_t = 0.1, value_parser = share)]
    pub(crate) ranges: f64,

    /// Share of GETs for one of a few ids that do not exist; each is then asked for twice more.
    #[arg(long, value_name = "SHARE", default_value_t = 0.1, value_parser = share)]
    pub(crate) missing: f64,

    /// Share of GETs whose client reads 16 KB a second, and gives up after ten seconds.
    #[arg(long, value_name = "SHARE", default_value_t = 0.05, value_parser = share)]
    pub(crate) slow_readers: f64,
}

/// One GET.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Get {
    /// When it is sent, from the start.
    pub(crate) at: Duration,
    pub(crate) target: String,
    pub(crate) manner: Manner,
}

/// Behaviour of its client.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Manner {
    /// Takes everything.
    Whole,
    /// Takes a range, both ends included.
    Range { first: u64, last: u64 },
    /// Leaves after that many body bytes.
    Leave { after: u64 },
    /// Asks again when there is nothing.
    Retry,
    /// Reads slowly, and gives up.
    Slow,
}

impl Load {
    pub(crate) fn check(&self) -> Result<()> {
        let Shares {
            disconnects,
            ranges,
            missing,
            slow_readers,
        } = self.shares;
        let sum = disconnects + ranges + missing + slow_readers;
        ensure!(sum <= 1.0, "the shares add up to {sum}, which is over 1");
        Ok(())
    }

    pub(crate) fn duration(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }

    /// Minutes of the original that are played.
    pub(crate) fn minutes_replayed(&self) -> f64 {
        self.seconds as f64 * self.speed / 60.0
    }

    /// Every GET in the order of time: a page each interval, whether or not the ones before are done.
    pub(crate) fn plan<'a>(&'a self, media: &'a [Media]) -> impl Iterator<Item = Get> + 'a {
        let interval = Duration::from_secs_f64(60.0 / (PAGES_PER_MINUTE * self.speed));
        let mut draw = Draw {
            rng: StdRng::seed_from_u64(self.seed),
            missing: Vec::new(),
            media,
            shares: &self.shares,
        };
        draw.missing = (0..MISSING_IDS).map(|_| draw.missing_target()).collect();
        let end = self.duration();
        (0u32..)
            .map(move |page| interval.mul_f64(f64::from(page)))
            .take_while(move |start| *start < end)
            .flat_map(move |start| draw.page(start))
    }
}

/// Draws pages.
struct Draw<'a> {
    rng: StdRng,
    missing: Vec<String>,
    media: &'a [Media],
    shares: &'a Shares,
}

impl Draw<'_> {
    fn page(&mut self, start: Duration) -> Vec<Get> {
        let mut gets: Vec<Get> = (0..GETS_PER_PAGE).map(|_| self.get(start)).collect();
        gets.sort_by_key(|get| get.at);
        gets
    }

    fn get(&mut self, start: Duration) -> Get {
        let at = start + PAGE_SPREAD.mul_f64(self.rng.random());
        let Media { path, size } = &self.media[self.rng.random_range(0..self.media.len())];
        let shares = self.shares;
        // One draw decides: the shares lie end to end on a line from 0 to 1.
        let mut drawn: f64 = self.rng.random();
        let mut within = |share: f64| {
            drawn -= share;
            drawn < 0.0
        };
        let manner = if within(shares.disconnects) {
            Manner::Leave {
                after: self.rng.random_range(0..*size),
            }
        } else if within(shares.ranges) {
            let first = self.rng.random_range(0..*size);
            Manner::Range {
                first,
                last: self.rng.random_range(first..*size),
            }
        } else if within(shares.missing) {
            Manner::Retry
        } else if within(shares.slow_readers) {
            Manner::Slow
        } else {
            Manner::Whole
        };
        let target = match manner {
            Manner::Retry => self.missing[self.rng.random_range(0..self.missing.len())].clone(),
            _ => path.clone(),
        };
        Get { at, target, manner }
    }

    /// A well-formed id that no file has.
    fn missing_target(&mut self) -> String {
        let [high, low]: [u128; 2] = self.rng.random();
        format!("/api/media/{high:032x}{low:032x}")
    }
}

fn share(text: &str) -> Result<f64, String> {
    number_within(text, 0.0, 1.0)
}

fn speed(text: &str) -> Result<f64, String> {
    number_within(text, 0.1, 1000.0)
}

fn number_within(text: &str, least: f64, most: f64) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (least..=most).contains(&number) {
        Ok(number)
    } else {
        Err(format!("it has to be within {least} and {most}"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic)]
    use super::*;
    use std::collections::HashSet;

    fn load(seed: u64) -> Load {
        Load {
            seconds: 60,
            speed: 60.0,
            seed,
            shares: Shares {
                disconnects: 0.2,
                ranges: 0.1,
                missing: 0.1,
                slow_readers: 0.05,
            },
        }
    }

    fn media() -> Vec<Media> {
        (1..=50)
            .map(|i| Media {
                path: format!("/api/media/{i:064x}"),
                size: 10_000 * i,
            })
            .collect()
    }

    fn plan(load: &Load) -> Vec<Get> {
        load.plan(&media()).collect()
    }

    #[test]
    fn the_same_seed_draws_the_same() {
        assert_eq!(plan(&load(1)), plan(&load(1)));
        assert_ne!(plan(&load(1)), plan(&load(2)));
    }

    #[test]
    fn pages_of_seven_come_at_the_speed_asked_for() {
        let gets = plan(&load(1));
        // 15 pages a minute, 60 times faster, for a minute.
        assert_eq!(gets.len(), 15 * 60 * GETS_PER_PAGE);
        for (page, gets) in gets.chunks(GETS_PER_PAGE).enumerate() {
            let start = Duration::from_secs_f64(page as f64 / 15.0);
            assert!(gets.is_sorted_by_key(|get| get.at));
            for get in gets {
                let after = get.at.abs_diff(start);
                assert!(after <= PAGE_SPREAD + Duration::from_micros(1), "{after:?}");
            }
        }
    }

    #[test]
    fn the_shares_hold() {
        let gets = plan(&load(3));
        let share = |is: fn(&Manner) -> bool| {
            gets.iter().filter(|get| is(&get.manner)).count() as f64 / gets.len() as f64
        };
        for (found, wanted) in [
            (share(|m| matches!(m, Manner::Leave { .. })), 0.2),
            (share(|m| matches!(m, Manner::Range { .. })), 0.1),
            (share(|m| matches!(m, Manner::Retry)), 0.1),
            (share(|m| matches!(m, Manner::Slow)), 0.05),
            (share(|m| matches!(m, Manner::Whole)), 0.55),
        ] {
            // Four standard errors of a share of 6300 draws are 0.025 at most.
            assert!((found - wanted).abs() < 0.025, "{found} for {wanted}");
        }
    }

    #[test]
    fn what_is_asked_for_can_be_answered() {
        let media = media();
        let mut missing = HashSet::new();
        for get in plan(&load(4)) {
            let size = media
                .iter()
                .find(|media| media.path == get.target)
                .map(|media| media.size);
            match (get.manner, size) {
                (Manner::Leave { after }, Some(size)) => assert!(after < size),
                (Manner::Range { first, last }, Some(size)) => {
                    assert!(first <= last && last < size)
                }
                (Manner::Whole | Manner::Slow, Some(_)) => {}
                (Manner::Retry, None) => {
                    missing.insert(get.target);
                }
                (manner, size) => panic!("{manner:?} of {size:?}"),
            }
        }
        assert_eq!(missing.len(), MISSING_IDS);
    }

    #[test]
    fn all_of_one_kind_is_all_of_it() {
        let mut all = load(5);
        all.shares = Shares {
            disconnects: 1.0,
            ranges: 0.0,
            missing: 0.0,
            slow_readers: 0.0,
        };
        assert!(
            plan(&all)
                .iter()
                .all(|get| matches!(get.manner, Manner::Leave { .. }))
        );
        all.shares.ranges = 0.1;
        assert!(all.check().is_err());
    }
}
