// Selects one page of a folder's listing with bounded memory (`format/src/listing.rs`).

/** @typedef {import('../dist/interfaces/millpond-media-media-store.js').Entry} Entry */
/** @typedef {import('../dist/interfaces/millpond-media-media-store.js').Listing} Listing */
/** @typedef {import('../dist/interfaces/millpond-media-media-store.js').ListQuery} ListQuery */

/** Maximum number of entries that are read of one folder. */
export const MAX_READ = 1_000_000;

/** Maximum number of entries on a page. */
const MAX_ENTRIES = 200;

/**
 * The kind of an entry.
 * @param {boolean} isFolder
 * @param {bigint} [length]
 * @param {string} [mediaType]
 * @returns {Entry['kind']}
 */
export function kindOf(isFolder, length = 0n, mediaType = '') {
  return isFolder ? { tag: 'folder' } : { tag: 'file', val: { length, mediaType } };
}

/** Selects the entries of one page among those of a folder. */
export class PageSelector {
  #query;
  #search;
  #max;
  /** @type {Ranked | undefined} */
  #after;
  /** Entries so far; sorted and cut whenever it has grown to twice a page. @type {Ranked[]} */
  #first = [];
  #hasMore = false;
  #total = 0n;

  /** @param {ListQuery} query */
  constructor(query) {
    this.#query = query;
    this.#search = query.search?.toLowerCase();
    this.#max = Math.min(query.max, MAX_ENTRIES);
    this.#after = query.after && rankedOf(query.after, query);
  }

  /** Whether the order needs modification times and lengths. */
  get needsMetadata() {
    return this.#query.order !== 'name';
  }

  /** Whether a name matches the search. @param {string} name */
  matches(name) {
    return this.#search === undefined || name.toLowerCase().includes(this.#search);
  }

  /** Adds an entry whose name matches. @param {Entry} entry */
  offer(entry) {
    this.#total += 1n;
    const ranked = rankedOf(entry, this.#query);
    if (this.#after !== undefined && this.#compare(ranked, this.#after) <= 0) return;
    this.#first.push(ranked);
    if (this.#first.length > 2 * this.#max + 2) this.#cut();
  }

  /** @returns {Listing} */
  listing() {
    this.#cut();
    return { entries: this.#first.map(({ entry }) => entry), total: this.#total, hasMore: this.#hasMore };
  }

  #cut() {
    this.#first.sort((a, b) => this.#compare(a, b));
    this.#hasMore ||= this.#first.length > this.#max;
    this.#first.length = Math.min(this.#first.length, this.#max);
  }

  /** @param {Ranked} a @param {Ranked} b */
  #compare(a, b) {
    if (a.isFile !== b.isFile) return a.isFile ? 1 : -1;
    const sign = this.#query.descending ? -1 : 1;
    if (a.value !== b.value) return a.value < b.value ? -sign : sign;
    const byName = Buffer.compare(a.folded, b.folded) || Buffer.compare(a.exact, b.exact);
    // Entries of equal time or length stay ordered by name.
    return this.#query.order === 'name' ? sign * byName : byName;
  }
}

/** @typedef {{ entry: Entry, isFile: boolean, value: bigint, folded: Buffer, exact: Buffer }} Ranked */

/**
 * @param {Entry} entry
 * @param {ListQuery} query
 * @returns {Ranked}
 */
function rankedOf(entry, { order }) {
  const { name, kind, modified = 0n } = entry;
  const length = kind.tag === 'file' ? kind.val.length : 0n;
  const value = order === 'modified' ? modified : order === 'length' ? length : 0n;
  // UTF-8 is in the order of code points, and UTF-16 is not.
  return {
    entry,
    isFile: kind.tag === 'file',
    value,
    folded: Buffer.from(name.toLowerCase()),
    exact: Buffer.from(name),
  };
}
