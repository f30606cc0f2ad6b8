import { KilnError } from '../domain/errors.ts';
import { handle, type Mounted } from './call.ts';
import { defineRoute } from './contract/route.ts';
import { UNSUPPORTED } from './contract/unsupported.ts';

/** Known calls that this install cannot answer; whoever makes one is told what there is instead. */
export const unsupportedHandlers: Mounted[] = UNSUPPORTED.flatMap(({ calls, scope, what, instead }) =>
  calls.map(([method, path]) => {
    const id = `unsupported_${method}_${path.replace(/\W+/g, '_').replace(/^_|_$/g, '')}`;
    const about = `Not on this install: ${instead}`;
    const route = defineRoute({
      id,
      method,
      path,
      tag: 'Not supported',
      about,
      scope,
      idempotent: false,
      answers: {},
    });
    return handle(route, async () => {
      throw new KilnError('UNSUPPORTED', `${what} are not supported by this install. ${instead}`);
    });
  }),
);
