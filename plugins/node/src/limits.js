// Limits of one request and of the middleware. Each has a name here, with the reason for its value. Names and values are
// those of the native host if it has the same limit.

/** Requests in flight at one time, unless told otherwise; one more gets 503. Each holds one file and one piece. */
export const REQUESTS = 1000;

/** Bytes that lie between file and socket for one answer: what one read takes from the page cache in good time. */
export const PIECE_BYTES = 64 * 1024;

/** Milliseconds in which a client has to take one piece, unless told otherwise: players rest for a minute and more. */
export const SEND_TIMEOUT_MS = 120_000;

/** Longest request target, in bytes (RFC 9110 section 4.1 asks for 8000 at least): 414 beyond. */
export const TARGET_BYTES = 8 * 1024;

/** Sum of a request's field names and values, in bytes: 431 beyond. */
export const FIELDS_BYTES = 16 * 1024;

/** Most field lines of a request: 431 beyond. */
export const FIELD_LINES = 100;

/** Largest head that Node is told to read, in bytes: well above the two, so that their own answers are given. */
export const HEAD_BYTES = 32 * 1024;

/** Content that a request may announce, in bytes: none is ever used. 413 beyond. */
export const CONTENT_BYTES = 64 * 1024;

/** Objects and streams that the guest may open for one request: one representation takes a few. */
export const HANDLES = 64;

/** Maximum that the guest itself makes of a response, in bytes: some kilobytes of head, and as much of JSON. */
export const LIFTED_BYTES = 128 * 1024;

/** Overhead of a field or a part, in bytes. */
export const ITEM_BYTES = 96;

/** Linear memory of the guest, in bytes. The embedded one has 64 KiB, and more for the largest heads only. */
export const GUEST_MEMORY_BYTES = 1024 * 1024;

/** Calls after which an instance is replaced: what the glue around it keeps cannot add up. */
export const CALLS_PER_INSTANCE = 10_000;

/** Largest record that is read, in bytes; a real one has some 150. */
export const RECORD_BYTES = 16 * 1024;

/** Most bytes of a named text that are looked at for its charset. */
export const TEXT_BYTES = 64 * 1024;

/** Most variants of one media: formats times codings. */
export const VARIANTS = 16;

/** Symbolic links that are followed on the way to one file: as many as Linux follows. */
export const LINKS = 40;

/** Digests of named files that are kept, of some 200 bytes each. */
export const DIGESTS = 10_000;

/** Largest file that is read for its digest, in bytes. */
export const DIGEST_LARGEST_BYTES = 64 * 1024 * 1024;

/** Largest file whose digest is computed when it is opened, in bytes: reading it takes some microseconds. */
export const SMALL_BYTES = 12 * 1024;
