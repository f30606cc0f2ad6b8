/** Bounded, redacted line logs of builds and instances on disk: writing, reading, following. */
export type { LogLine, LogStream } from './logs/line.ts';
export { followLog, readLog } from './logs/reader.ts';
export { type LogOptions, type LogWriter, openLog } from './logs/writer.ts';
