// Package erofs writes EROFS files, which gVisor mounts as the root of sandboxes
// by itself, without unpacking anything to a directory: names and attributes are
// kept in memory while the contents of files go to the file as they come, and
// Finish writes the inodes and directories behind them.
//
//	block 0        superblock
//	block 1 …      contents of files, in the order of their coming
//	then           directories and symlinks that are larger than an inode's rest
//	then           inodes, each with its small directory or symlink behind it
//
// The same calls always give the same file. gVisor reads neither compressed
// EROFS, nor regular files with inline tails, nor inodes with extended
// attributes, so there are none.
package erofs
