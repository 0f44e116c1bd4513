// Where the server is, and what it serves. `make test-clients` starts it.
export const URL = process.env.BROLLY_CLIENTS_URL;
export const V1 = `${URL}/v1`;
export const CHAT = 'tiny-tools', EMBED = 'mini-embed', EAR = 'mini-whisper';
export const SOUND = new globalThis.URL('../../fixtures/audio/fuzzy.flac', import.meta.url);
