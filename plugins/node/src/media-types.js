// The media type of a named file: by its extension, and for text by its beginning.

import { extname } from 'node:path/posix';
import { Mime } from 'mime/lite';
import standardTypes from 'mime/types/standard.js';
import otherTypes from 'mime/types/other.js';
import { TEXT_BYTES } from './limits.js';

/**
 * The media type, as it stands in `Content-Type`.
 * @param {string} name a path
 */
export function mediaTypeOf(name) {
  const extension = extname(name).slice(1);
  return (extension && types.getType(extension)) || 'application/octet-stream';
}

/**
 * The same with `charset=utf-8`, where it is text and known to be in UTF-8 (`format/src/charset.rs`). Text in other
 * encodings shows it as soon as it leaves ASCII.
 * @param {string} mediaType
 * @param {number} length of the file, in bytes
 * @param {() => Buffer} readBeginning the file's first bytes, `TEXT_BYTES` at most; called for text only
 */
export function withCharset(mediaType, length, readBeginning) {
  if (!mediaType.startsWith('text/') || mediaType.includes(';')) return mediaType;
  return isUtf8(readBeginning(), length) ? `${mediaType}; charset=utf-8` : mediaType;
}

/**
 * Whether that is UTF-8, and nothing that other encodings look like: UTF-16 has U+0000 in it, ISO-2022-JP ESC.
 * @param {Buffer} beginning
 * @param {number} length
 */
function isUtf8(beginning, length) {
  if (beginning.length < Math.min(length, TEXT_BYTES)) return false;
  const isWhole = beginning.length >= length;
  try {
    // A character that is cut at the end of what was read is no fault of the text's.
    const text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(beginning, {
      stream: !isWhole,
    });
    return !/[\0\x1b]/.test(text) && (isWhole || /[^\x00-\x7f]/.test(text));
  } catch {
    return false;
  }
}

const types = new Mime(standardTypes, otherTypes);

// Where the native host's table (`format/src/names.rs`) says otherwise of what pages and players ask for: two
// hosts of one folder give one answer.
const OF_THE_HOST = {
  'audio/aiff': ['aif', 'aifc', 'aiff', 'cdda'],
  'application/dash-patch+xml': ['mpdp'],
  'application/mp4': ['cmfm', 'cmft'],
  'application/ttml+xml': ['dfxp', 'ttml'],
  'application/vnd.apple.mpegurl': ['m3u8'],
  'audio/ac3': ['ac3'],
  'audio/eac3': ['ec3'],
  'audio/flac': ['flac'],
  'audio/mp4': ['cmfa', 'm4a', 'm4b', 'm4p', 'm4r'],
  'audio/mid': ['mid', 'midi', 'rmi'],
  'audio/scpls': ['pls'],
  'audio/wav': ['wave'],
  'font/otf': ['otf'],
  'font/woff': ['woff'],
  'image/avif': ['avifs'],
  'image/jpeg': ['jfif'],
  'image/vnd.radiance': ['hdr'],
  'image/x-icon': ['ico'],
  'model/obj': ['obj'],
  'model/stl': ['stl'],
  'model/vnd.usdz+zip': ['usdz'],
  'text/javascript': ['ecma', 'jsx', 'mjs'],
  'text/plain': ['asm', 'c', 'cc', 'cfg', 'cpp', 'cs', 'h', 'hh', 'hpp', 'lst', 'map', 'py'],
  'text/x-ssa': ['ass', 'ssa'],
  'text/x-rust': ['rs'],
  'text/x-toml': ['toml'],
  'text/x-yaml': ['yaml', 'yml'],
  'text/xml': ['dtd', 'wsdl', 'xml', 'xsd', 'xsl', 'xslt'],
  'video/3gpp2': ['3gp2'],
  'video/iso.segment': ['m4s'],
  'video/mp2t': ['m2t', 'm2ts', 'mts', 'ts'],
  'video/mp4': ['cmfv'],
  'video/mpeg': ['mod', 'mp2v', 'mpa', 'mpv2'],
  'video/quicktime': ['mqv'],
  'video/vnd.dlna.mpeg-tts': ['tts'],
  'video/x-dv': ['dif', 'dv'],
};
types.define(OF_THE_HOST, true);
