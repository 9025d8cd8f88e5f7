// The guest's settings, validated: `wit/settings.wit` (`host/millpond/src/config.rs`).

/** @typedef {import('../dist/interfaces/millpond-media-settings.js').Settings} SettingsRecord */
/** @typedef {import('../dist/interfaces/millpond-media-settings.js').SigningKey} SigningKey */

/** Settings for the guest. */
export class Settings {
  /** Settings without secrets. @type {SettingsRecord} */
  record = { mountPath: '/media' };
  /** Keys that sign URLs. @type {SigningKey[]} */
  signingKeys = [];

  /**
   * @param {import('../index.js').Settings} options
   * @throws {TypeError} naming the option that cannot be used
   */
  constructor(options) {
    for (const [option, value] of Object.entries(options)) {
      const setting = SETTINGS.find((setting) => setting.option === option);
      if (!setting) throw new TypeError(`there is no option ${option}`);
      if (value === undefined) continue;
      const parsed = setting.parse(value);
      if (parsed === undefined) throw new TypeError(`${option}: ${setting.expected}`);
      if (option === 'signingKeys') this.signingKeys = parsed;
      else if (parsed !== '*' || option !== 'corsOrigins') {
        Object.assign(this.record, { [setting.field ?? option]: parsed });
      }
    }
  }

  /** Path under which named files are served. */
  get mountPath() {
    return this.record.mountPath ?? '/media';
  }
}

/**
 * Converts a setting as text, as on the command line, to an option.
 * @param {string} key as in `format/src/settings.rs`
 * @param {string} text
 * @returns {import('../index.js').Settings}
 */
export function optionOf(key, text) {
  const setting = SETTINGS.find((setting) => setting.key === key);
  if (!setting) throw new TypeError(`there is no setting ${key}`);
  return { [setting.option]: setting.fromText(text) };
}

/** @typedef {(text: string) => unknown} Read */

const asText = {
  fromText: /** @type {Read} */ ((text) => text),
  parse: (/** @type {unknown} */ value) =>
    typeof value === 'string' && /^[\x20-\x7e]*$/.test(value) && value.trim() === value ? value : undefined,
  expected: "a field's value is visible ASCII and spaces",
};

const asSeconds = {
  fromText: /** @type {Read} */ (Number),
  parse: (/** @type {unknown} */ value) =>
    Number.isInteger(value) && Number(value) >= 0 && Number(value) < 2 ** 32 ? Number(value) : undefined,
  expected: 'a time is a whole number of seconds',
};

/** @type {{ option: string, field?: string, key: string, fromText: Read, parse: (value: unknown) => any, expected: string }[]} */
const SETTINGS = [
  {
    option: 'mountPath',
    key: 'mount-path',
    fromText: /** @type {Read} */ ((text) => text),
    parse: pathOf,
    expected:
      'a mount path begins with `/`, has no `?`, `#`, `%` or space, and is neither `/api/media`, where ' +
      'media is served by its content, nor beneath it',
  },
  {
    option: 'corsOrigins',
    key: 'cors-origins',
    fromText: /** @type {Read} */ ((text) => (text === '*' ? text : text.split(/[\s,]+/).filter(Boolean))),
    parse: originsOf,
    expected: "origins are '*' or a list of `scheme://host` or `scheme://host:port`, in lower case",
  },
  { option: 'corsMaxAge', field: 'corsMaxAgeS', key: 'cors-max-age', ...asSeconds },
  { option: 'timingAllowOrigin', key: 'timing-allow-origin', ...asText },
  { option: 'crossOriginResourcePolicy', key: 'cross-origin-resource-policy', ...asText },
  { option: 'contentSecurityPolicy', key: 'content-security-policy', ...asText },
  { option: 'cacheContent', key: 'cache-content', ...asText },
  { option: 'cacheFiles', key: 'cache-files', ...asText },
  { option: 'negativeTtl', field: 'negativeTtlS', key: 'negative-ttl', ...asSeconds },
  {
    option: 'browse',
    key: 'browse',
    fromText: /** @type {Read} */ ((text) => ({ on: true, off: false })[text]),
    parse: (/** @type {unknown} */ value) => (typeof value === 'boolean' ? value : undefined),
    expected: 'browse is true or false: on or off',
  },
  {
    option: 'signingKeys',
    key: 'signing-keys',
    fromText: /** @type {Read} */ (keysIn),
    parse: keysOf,
    expected: 'a signing key has an id of letters, digits, `-` and `_`, and 16 bytes or more in hexadecimal',
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
  return Array.isArray(value) && value.every(isOrigin) ? value : undefined;
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
  return areKeys ? keys.map(([id, secret]) => ({ id, secret: Buffer.from(secret, 'hex') })) : undefined;
}
