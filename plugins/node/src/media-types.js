// The media type of a name, by its extension.

import { extname } from 'node:path/posix';
import { Mime } from 'mime/lite';
import standardTypes from 'mime/types/standard.js';
import otherTypes from 'mime/types/other.js';

/**
 * The media type, as it stands in `Content-Type`.
 * @param {string} name a path
 */
export function mediaTypeOf(name) {
  const extension = extname(name).slice(1);
  return (extension && types.getType(extension)) || 'application/octet-stream';
}

const types = new Mime(standardTypes, otherTypes);

// Where the native host's table (the crate `mime_guess`) says otherwise of what pages and players ask for: two hosts of
// one folder give one answer.
const OF_THE_HOST = {
  'application/font-sfnt': ['otf'],
  'application/font-woff': ['woff'],
  'application/javascript': ['mjs'],
  'audio/aiff': ['aif', 'aifc', 'aiff', 'cdda'],
  'audio/ac3': ['ac3'],
  'audio/flac': ['flac'],
  'audio/m4a': ['m4a'],
  'audio/m4b': ['m4b'],
  'audio/m4p': ['m4p'],
  'audio/mid': ['mid', 'midi', 'rmi'],
  'audio/scpls': ['pls'],
  'audio/wav': ['wave'],
  'audio/x-m4r': ['m4r'],
  'audio/x-mpegurl': ['m3u8'],
  'image/avif-sequence': ['avifs'],
  'image/jpeg': ['jfif'],
  'image/vnd.radiance': ['hdr'],
  'image/x-icon': ['ico'],
  'text/javascript': ['ecma', 'jsx'],
  'text/plain': ['asm', 'c', 'cc', 'cfg', 'cpp', 'cs', 'h', 'hh', 'hpp', 'lst', 'map', 'py'],
  'text/x-rust': ['rs'],
  'text/x-toml': ['toml'],
  'text/x-yaml': ['yaml', 'yml'],
  'text/xml': ['dtd', 'wsdl', 'xml', 'xsd', 'xsl', 'xslt'],
  'video/3gpp2': ['3gp2'],
  'video/mpeg': ['mod', 'mp2v', 'mpa', 'mpv2'],
  'video/quicktime': ['mqv'],
  'video/vnd.dlna.mpeg-tts': ['m2t', 'm2ts', 'mts', 'ts', 'tts'],
  'video/x-dv': ['dif', 'dv'],
};
types.define(OF_THE_HOST, true);
