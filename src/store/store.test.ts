import { storeContract } from './contract.ts';
import { testDatabase } from './database.fixture.ts';

storeContract('PGlite', testDatabase);
