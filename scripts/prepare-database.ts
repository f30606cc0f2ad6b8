/** Makes the database that first starts begin with; `install.mjs` runs it. See src/store/prepared.ts. */
import { openDatabase } from '../src/store/db.ts';
import { prepareDatabase, preparedFolder } from '../src/store/prepared.ts';

await prepareDatabase(preparedFolder(), async (dir) => {
  const database = await openDatabase({ dir });
  await database.close();
});
