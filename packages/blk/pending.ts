/** In place of a status: the request is being worked on. */
export const PENDING = -1;
