//! The component `media-serve`: the handler of `millpond-guest`, exported.

millpond_guest::export!(millpond_guest::Media);
