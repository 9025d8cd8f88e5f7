// The guest's settings: typed and validated here, strings by key for the guest (`wit/world.wit`,
// `host/src/config.rs`).

/** Settings as the guest is given them. */
export class Settings {
  /** @type {Map<string, string>} */
  #byKey;

  /**
   * @param {import('../index.js').Settings} options
   * @throws {TypeError} naming the option that cannot be used
   */
  constructor(options) {
    this.#byKey = new Map([['files-at', '/media']]);
    for (const [option, value] of Object.entries(options)) {
      const setting = SETTINGS.find((setting) => setting.option === option);
      if (!setting) throw new TypeError(`there is no option ${option}`);
      if (value === undefined) continue;
      const text = setting.textOf(value);
      if (text === undefined) throw new TypeError(`${option}: ${setting.isWhat}`);
      this.#byKey.set(setting.key, text);
    }
  }

  /** @param {string} key */
  get(key) {
    return this.#byKey.get(key);
  }

  /** All but secrets. @returns {[string, string][]} */
  all() {
    return [...this.#byKey].filter(([key]) => key !== SECRET);
  }
}

/**
 * The option that a setting in text stands for, as the command line has it.
 * @param {string} key as in `wit/world.wit`
 * @param {string} text
 * @returns {import('../index.js').Settings}
 */
export function optionOf(key, text) {
  const setting = SETTINGS.find((setting) => setting.key === key);
  if (!setting) throw new TypeError(`there is no setting ${key}`);
  return { [setting.option]: setting.valueOf(text) };
}

const SECRET = 'signing-keys';

/** @typedef {(text: string) => unknown} Read */

const asText = {
  valueOf: /** @type {Read} */ ((text) => text),
  textOf: (/** @type {unknown} */ value) =>
    typeof value === 'string' && /^[\x20-\x7e]*$/.test(value) && value.trim() === value ? value : undefined,
  isWhat: "a field's value is visible ASCII and spaces",
};

const asSeconds = {
  valueOf: /** @type {Read} */ (Number),
  textOf: (/** @type {unknown} */ value) =>
    Number.isInteger(value) && Number(value) >= 0 && Number(value) < 2 ** 32 ? String(value) : undefined,
  isWhat: 'a time is a whole number of seconds',
};

const SETTINGS = [
  {
    option: 'filesAt',
    key: 'files-at',
    valueOf: /** @type {Read} */ ((text) => text),
    textOf: pathOf,
    isWhat:
      'a path to serve files at begins with `/`, has no `?`, `#`, `%` or space, and is neither `/api/media`, where ' +
      'media is served by its content, nor beneath it',
  },
  {
    option: 'corsOrigins',
    key: 'cors-origins',
    valueOf: /** @type {Read} */ ((text) => (text === '*' ? text : text.split(/[\s,]+/).filter(Boolean))),
    textOf: originsOf,
    isWhat: "origins are '*' or a list of `scheme://host` or `scheme://host:port`, in lower case",
  },
  { option: 'corsMaxAge', key: 'cors-max-age', ...asSeconds },
  { option: 'timingAllowOrigin', key: 'timing-allow-origin', ...asText },
  { option: 'resourcePolicy', key: 'resource-policy', ...asText },
  { option: 'documentPolicy', key: 'document-policy', ...asText },
  { option: 'cacheContent', key: 'cache-content', ...asText },
  { option: 'cacheFiles', key: 'cache-files', ...asText },
  { option: 'cacheMissing', key: 'cache-missing', ...asSeconds },
  {
    option: 'signingKeys',
    key: SECRET,
    valueOf: /** @type {Read} */ (keysIn),
    textOf: keysOf,
    isWhat: 'a signing key has an id of letters, digits, `-` and `_`, and 16 bytes or more in hexadecimal',
  },
];

/** @param {unknown} value */
function pathOf(value) {
  const isPath =
    typeof value === 'string' &&
    /^\/[\x21-\x7e]*$/.test(value) &&
    !/[?#%\\]|\/\/|^\/api\/media(\/|$)/.test(value);
  return isPath ? value.replace(/\/$/, '') || '/' : undefined;
}

/** @param {unknown} value */
function originsOf(value) {
  if (value === '*') return value;
  const isOrigin = (/** @type {unknown} */ origin) =>
    typeof origin === 'string' && /^[a-z0-9.+:[\]-]+:\/\/[a-z0-9.+:[\]-]+$/.test(origin);
  return Array.isArray(value) && value.every(isOrigin) ? value.join(' ') : undefined;
}

/** @param {string} text `<id>:<secret in hexadecimal>`, with a space or a comma between them */
function keysIn(text) {
  const pairs = text.split(/[\s,]+/).filter(Boolean);
  return Object.fromEntries(pairs.map((pair) => pair.split(/:(.*)/s, 2)));
}

/** @param {unknown} value */
function keysOf(value) {
  if (typeof value !== 'object' || value === null) return undefined;
  const keys = Object.entries(value);
  const areKeys = keys.every(
    ([id, secret]) =>
      /^[\w-]+$/.test(id) && typeof secret === 'string' && /^([0-9a-f]{2}){16,}$/i.test(secret),
  );
  return areKeys ? keys.map(([id, secret]) => `${id}:${secret}`).join(' ') : undefined;
}
