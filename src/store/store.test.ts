import { storeContract } from './contract.ts';
import { openDatabase } from './db.ts';

storeContract('PGlite', () => openDatabase({ dir: 'memory://' }));
