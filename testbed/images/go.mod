// Programs that run inside the test bed's pods, and the writer of their images. Standard library only.
module portcullis.dev/testbed/images

go 1.26.0
