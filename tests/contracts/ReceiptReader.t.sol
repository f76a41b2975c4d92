// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IReceiptReader, Parties} from "../../contracts/interfaces/IReceiptReader.sol";
import {SignedReceipt} from "../../contracts/types/Claims.sol";
import {Messages} from "../../contracts/types/Messages.sol";
import {Jobs} from "./support/Jobs.sol";

/// @title The reader that the escrow made for itself, called directly
contract ReceiptReaderTest is Jobs {
    IReceiptReader private _reader;

    function setUp() public override {
        super.setUp();
        _reader = escrow.RECEIPTS();
    }

    function testFuzz_ReadAddsUpAscendingReceipts(uint128[3] memory amounts) public view {
        SignedReceipt[] memory jobs = _jobs(amounts);
        (uint256 sum, uint32 throughSeq, bytes32[] memory hashes) = _reader.read(_parties(), 0, jobs);
        assertEq(sum, uint256(amounts[0]) + amounts[1] + amounts[2]);
        assertEq(throughSeq, 5);
        assertEq(abi.encode(hashes), abi.encode(_hashesOf(jobs)));
    }

    function test_ReadOfNoReceiptsIsNothing() public view {
        (uint256 sum, uint32 throughSeq, bytes32[] memory hashes) =
            _reader.read(_parties(), 9, new SignedReceipt[](0));
        assertEq(sum, 0);
        assertEq(throughSeq, 9);
        assertEq(hashes.length, 0);
    }

    function test_ReadRefusesASeqThatDoesNotRise() public {
        SignedReceipt[] memory jobs = _jobs([uint128(1), 2, 3]);
        _refuse(0, _swapped(jobs), abi.encodeWithSelector(IReceiptReader.ReceiptReader_WrongSeq.selector, 1, 3));
        _refuse(1, jobs, abi.encodeWithSelector(IReceiptReader.ReceiptReader_WrongSeq.selector, 1, 1));
        jobs[2] = jobs[1];
        _refuse(0, jobs, abi.encodeWithSelector(IReceiptReader.ReceiptReader_WrongSeq.selector, 3, 3));
        _refuse(
            0, _one(_job(0, 1)), abi.encodeWithSelector(IReceiptReader.ReceiptReader_WrongSeq.selector, 0, 0)
        );
    }

    function test_ReadRefusesAnOrderOfAnotherSession() public {
        SignedReceipt memory job = _job(1, 10);
        job.order.sessionId = keccak256("other");
        _refuse(0, _one(job), _reference(job.order.sessionId, id));
    }

    function test_ReadRefusesAReceiptOfAnotherOrder() public {
        SignedReceipt memory job = _job(1, 10);
        job.receipt.orderHash = keccak256("other");
        _refuse(0, _one(_signed(nodeKey, job)), _reference(keccak256("other"), _digest(Messages.hash(job.order))));
    }

    function testFuzz_ReadRefusesMoreThanTheOrderOffers(uint128 most, uint128 amount) public {
        most = uint128(bound(most, 0, type(uint128).max - 1));
        amount = uint128(bound(amount, most + 1, type(uint128).max));
        SignedReceipt memory job = _job(1, most);
        job.receipt.amount = amount;
        _refuse(
            0,
            _one(_signed(nodeKey, job)),
            abi.encodeWithSelector(IReceiptReader.ReceiptReader_AboveOrder.selector, amount, most)
        );
    }

    function test_ReadTakesNoMoneyForAFailedJob() public {
        SignedReceipt memory job = _job(1, 10);
        job.receipt.status = 0;
        bytes memory reason = abi.encodeWithSelector(IReceiptReader.ReceiptReader_AboveOrder.selector, 10, 0);
        _refuse(0, _one(_signed(nodeKey, job)), reason);
        job.receipt.amount = 0;
        _reader.read(_parties(), 0, _one(_signed(nodeKey, job)));
        (job.receipt.amount, job.receipt.status) = (10, 2);
        (uint256 sum,,) = _reader.read(_parties(), 0, _one(_signed(nodeKey, job)));
        assertEq(sum, 10);
    }

    function test_ReadTakesNoMoneyPastTheDeadlineToTheMillisecond() public {
        SignedReceipt memory job = _job(1, 10);
        (uint256 sum,,) = _reader.read(_parties(), 0, _one(job));
        assertEq(sum, 10);
        job.receipt.finishedAtMs = job.order.deadlineMs + 1;
        bytes memory reason = abi.encodeWithSelector(IReceiptReader.ReceiptReader_AboveOrder.selector, 10, 0);
        _refuse(0, _one(_signed(nodeKey, job)), reason);
    }

    function test_ReadRefusesOtherSigners() public {
        SignedReceipt memory job = _job(buyer, 1, 10);
        _refuse(0, _one(job), _signer(buyer.addr, nodeKey.addr));
        job = _job(1, 10);
        job.orderSignature = _sign(nodeKey, Messages.hash(job.order));
        _refuse(0, _one(job), _signer(nodeKey.addr, key.addr));
    }

    function test_ReadRefusesHighSAndMalformedSignatures() public {
        SignedReceipt memory job = _job(1, 10);
        job.orderSignature = _signHigh(key, Messages.hash(job.order));
        _refuse(0, _one(job), _signer(address(0), key.addr));
        job = _job(1, 10);
        job.receiptSignature = "";
        _refuse(0, _one(job), _signer(address(0), nodeKey.addr));
    }

    /// @dev A node without a key in some epoch has the signer 0, and 0 signs nothing.
    function test_ReadTakesNobodyForTheSignerOfZero() public {
        SignedReceipt memory job = _job(1, 10);
        job.receiptSignature = "";
        Parties memory parties = _parties();
        parties.nodeSigner = address(0);
        vm.expectRevert(_signer(address(0), address(0)));
        _reader.read(parties, 0, _one(job));
    }

    function test_ReadTakesTheShortSignatureForm() public view {
        SignedReceipt memory job = _job(1, 10);
        job.orderSignature = _signShort(key, Messages.hash(job.order));
        job.receiptSignature = _signShort(nodeKey, Messages.hash(job.receipt));
        (uint256 sum,,) = _reader.read(_parties(), 0, _one(job));
        assertEq(sum, 10);
    }

    function _refuse(uint32 afterSeq, SignedReceipt[] memory jobs, bytes memory reason) private {
        Parties memory parties = _parties();
        vm.expectRevert(reason);
        _reader.read(parties, afterSeq, jobs);
    }

    function _parties() private view returns (Parties memory) {
        return Parties(escrow.DOMAIN_SEPARATOR(), id, key.addr, nodeKey.addr);
    }

    function _swapped(SignedReceipt[] memory jobs) private pure returns (SignedReceipt[] memory swapped) {
        swapped = new SignedReceipt[](2);
        (swapped[0], swapped[1]) = (jobs[1], jobs[0]);
    }

    function _reference(bytes32 got, bytes32 limit) private pure returns (bytes memory) {
        return abi.encodeWithSelector(IReceiptReader.ReceiptReader_WrongReference.selector, got, limit);
    }

    function _signer(address got, address limit) private pure returns (bytes memory) {
        return abi.encodeWithSelector(IReceiptReader.ReceiptReader_WrongSigner.selector, got, limit);
    }
}
