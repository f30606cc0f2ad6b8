/** Makes the database that first starts begin with; `install.mjs` runs it. See src/store/prepared.ts. */
import { PGlite } from '@electric-sql/pglite';
import { prepareDatabase, preparedFolder } from '../src/store/prepared.ts';

await prepareDatabase(preparedFolder(), async (dir) => {
  const pglite = await PGlite.create(dir);
  await pglite.close();
});
